"""What every route has at hand, and how a request of the contract becomes an answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from ddpm_api import Event, GenerateRequest
from ddpm_service.gateway.answer import EventAnswer, Renders
from ddpm_service.gateway.gate import Gate
from ddpm_service.gateway.reading import read_body
from ddpm_service.gateway.settings import Settings
from ddpm_service.torchserve.board import Board

Through = Callable[[AsyncGenerator[Event, None]], AsyncGenerator[Event, None]]


@dataclass(frozen=True)
class Order:
    """What to make, and how to answer."""

    model: str
    version: str | None
    request: GenerateRequest
    rendering: Renders
    through: Through | None = None
    """What is done with the events before they are rendered."""


@dataclass(frozen=True)
class Door:
    """The parts of the front door."""

    gate: Gate
    board: Board
    settings: Settings
    host: str = "127.0.0.1"
    """The address that is listened on."""
    models_directory: str = "model_store"
    """The name of the folder that the archives lie in."""

    @property
    def ready(self) -> bool:
        """Whether requests are taken and the default version of every model can answer."""
        return self.board.ready and not self.gate.draining

    async def serve(self, request: Request, order: Callable[[bytes], Awaitable[Order]]) -> Response:
        """Let a request in, read it, and answer it by events.

        Args:
            request: its body is read here.
            order: makes the order of the body; raises ApiError to refuse it.
        """
        with ExitStack() as held:
            host = request.client.host if request.client else None
            caller = held.enter_context(self.gate.admit(request.headers.get("authorization"), host))
            wanted = await order(await read_body(request, self.gate.limits, self.settings, held, caller))
            events = self.gate.generate(
                wanted.model,
                wanted.version,
                wanted.request,
                request.scope["state"]["request_id"],
                progress=wanted.rendering.streams,
            )
            if wanted.through is not None:
                events = wanted.through(events)
            return EventAnswer(events, wanted.rendering, self.settings, held.pop_all())


def door_of(request: Request) -> Door:
    """The front door that a request came to."""
    door: Door = request.app.state.door
    return door
