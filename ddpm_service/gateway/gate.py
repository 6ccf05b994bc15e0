"""What every transport goes through: who asks, how much they may, and whether the service still takes requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, aclosing, contextmanager

from ddpm_api import ApiError, Error, ErrorEvent, Event, GenerateRequest
from ddpm_service.gateway import logs
from ddpm_service.gateway.auth import Caller, Tokens, anonymous, asking
from ddpm_service.gateway.backend import Backend
from ddpm_service.gateway.limits import Limits
from ddpm_service.gateway.metrics import Metrics
from ddpm_service.torchserve.board import State

_DRAIN_RETRY_SECONDS = 10


class Gate:
    """A door that lets requests in, counts them, and closes for good.

    A transport does, for one request::

        with gate.admit(authorization, host) as caller:      # ApiError: answer it
            async with aclosing(gate.generate(model, version, request, request_id)) as events:
                async for event in events: …           # the last one is `end` or `error`

    Args:
        backend: what makes the pictures.
        limits: how much may be asked.
        tokens: who may ask; None lets everybody.
        metrics: where figures go.
    """

    def __init__(self, backend: Backend, limits: Limits, tokens: Tokens | None, metrics: Metrics) -> None:
        self.backend = backend
        self.limits = limits
        self.tokens = tokens
        self.metrics = metrics
        self.draining = False
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def identify(self, authorization: str | None, host: str | None = None) -> Caller:
        """Who sent this `Authorization` header, from this IP address.

        Raises:
            ApiError: `unauthorized`.
        """
        return anonymous(host) if self.tokens is None else self.tokens.caller(authorization)

    @contextmanager
    def admit(self, authorization: str | None, host: str | None) -> Iterator[Caller]:
        """Hold the place of a request from before its body is read until its answer is sent.

        Raises:
            ApiError: `unauthorized`, `draining` or `rate_limited`.
        """
        with ExitStack() as held:
            try:
                caller = self.identify(authorization, host)
                if self.draining:
                    message = "The service is about to stop; ask again."
                    raise ApiError(Error(code="draining", message=message, retry_after=_DRAIN_RETRY_SECONDS))
                held.enter_context(self.limits.caller(caller))
            except ApiError as error:
                self.metrics.refused(error.error.code)
                raise
            held.enter_context(self._counted())
            asking.set(caller)
            yield caller

    async def generate(
        self, model: str, version: str | None, request: GenerateRequest, request_id: str, *, progress: bool = True
    ) -> AsyncGenerator[Event, None]:
        """Make faces for an admitted request; as `Backend.generate`, and `busy` when the version's queue is full."""
        known = self.backend.models().get(model)
        if known is None:
            self.metrics.refused("not_found")
            async for event in self.backend.generate(model, version, request, request_id):
                yield event
            return
        began = time.monotonic()
        story = self.metrics.follow(model)
        # The version is chosen here, so that the place that is held belongs to the version that is asked.
        version = version or known.default
        try:
            if version in known.versions and known.versions[version].state is State.LEAVING:
                raise ApiError(Error(code="unavailable", message=f"{model} {version} is being removed.", retry_after=5))
            with self.limits.place(model, version, asking.get()):
                asked = self.backend.generate(model, version, request, request_id, progress=progress)
                async with aclosing(asked) as events:
                    async for event in events:
                        story.feed(event, time.monotonic() - began)
                        yield event
        except ApiError as refusal:
            event = ErrorEvent(error=refusal.error)
            story.feed(event, 0)
            yield event
        finally:
            story.close()
            seconds = round(time.monotonic() - began, 4)
            logs.log.info(
                "generated",
                extra={
                    "request_id": request_id,
                    "caller": asking.get().name,
                    "model": model,
                    "version": version,
                    "outcome": story.outcome,
                    "images": story.images,
                    "seconds": seconds,
                },
            )

    async def drain(self, seconds: float) -> bool:
        """Take no new request, and wait so long for those that run; return whether all have ended."""
        self.draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._open += 1
        self._idle.clear()
        self.metrics.open.inc()
        try:
            yield
        finally:
            self._open -= 1
            self.metrics.open.dec()
            if not self._open:
                self._idle.set()
