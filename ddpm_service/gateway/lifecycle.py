"""From the start to the last process gone: TorchServe supervised in a thread, the ports in the event loop."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from ddpm_service.gateway.addressed import Addressed
from ddpm_service.gateway.app import create_app
from ddpm_service.gateway.auth import Tokens, may_listen
from ddpm_service.gateway.backend import TorchServeBackend
from ddpm_service.gateway.door import Door
from ddpm_service.gateway.gate import Gate
from ddpm_service.gateway.grpc_door import GrpcDoor
from ddpm_service.gateway.limits import Limits
from ddpm_service.gateway.listener import Listener
from ddpm_service.gateway.logs import log
from ddpm_service.gateway.metrics import Metrics, VersionMetrics, metrics_app
from ddpm_service.gateway.settings import Settings
from ddpm_service.torchserve.board import Board
from ddpm_service.torchserve.pulse import Pulse
from ddpm_service.torchserve.supervise import Supervisor

_LOOK_SECONDS = 0.1
# A request that found a version just before it was taken away has its place after this time.
_SETTLE_SECONDS = 0.3
# One Ctrl-C may arrive twice: the terminal signals the whole group, and `make` signals its children again.
_TWICE_SECONDS = 1.0


@dataclass(frozen=True)
class Options:
    """What `ddpm serve` is told."""

    host: str
    port: int
    grpc_port: int
    metrics_host: str
    metrics_port: int
    models: Path
    config: Path
    tokens: Path | None = None
    insecure: bool = False
    checksums: Path | None = None


def serve(options: Options, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; running requests finish, a second signal later cuts them. No process is left.

    Raises:
        ServiceError: it cannot start, or has failed for good.
    """
    may_listen(options.host, tokens=options.tokens is not None, insecure=options.insecure)
    asyncio.run(_serve(options, settings))


async def _serve(options: Options, settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    board, limits, metrics = Board(), Limits(settings), Metrics()
    tokens = Tokens(options.tokens) if options.tokens else None

    def drain_version(name: str, version: str) -> None:
        deadline = time.monotonic() + settings.drain_seconds
        time.sleep(_SETTLE_SECONDS)
        while limits.open(name, version) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)

    lines = {"max_request_size": str(settings.longest_upstream)}
    pulse = Pulse()
    supervisor = Supervisor(
        options.config,
        options.models,
        lines,
        board=board,
        drain=drain_version,
        pulse=pulse,
        vouched=options.checksums,
    )
    backend = TorchServeBackend(supervisor.server.inference_url, board, pulse)
    gate = Gate(backend, limits, tokens, metrics)
    door = Door(gate, board, settings, options.host, supervisor.server.model_store.name)
    metrics.ready.set_function(lambda: door.ready)
    VersionMetrics(board, metrics)
    board.listen(lambda: _in_loop(loop, backend.end_lost))
    signals = _Signals(loop)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(backend.close)
        http = await _listen(stack, create_app(door), options.host, options.port)
        figures = Addressed(metrics_app(metrics, supervisor.server.metrics_url), options.metrics_host, settings)
        await _listen(stack, figures, options.metrics_host, options.metrics_port)
        grpc_door = GrpcDoor(door)
        host = f"[{options.host}]" if ":" in options.host else options.host
        grpc_port = await grpc_door.start(f"{host}:{options.grpc_port}")
        stack.push_async_callback(grpc_door.stop)
        log.info("listening at grpc://%s:%d", host, grpc_port)
        supervising = asyncio.create_task(asyncio.to_thread(supervisor.run))
        while not (door.ready or supervising.done() or signals.first.done()):
            await asyncio.wait({supervising, signals.first}, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if door.ready:
            log.info("ready: open http://%s:%d", host, http.port)
        await _first(supervising, signals.first)
        if not supervising.done():
            log.info("stopping: running requests finish, new ones are refused")
            draining = asyncio.create_task(gate.drain(settings.drain_seconds))
            await _first(supervising, signals.second, draining)
            draining.cancel()
        gate.draining = True
        while not supervising.done():
            await asyncio.to_thread(supervisor.stop)
            await asyncio.wait({supervising}, timeout=_LOOK_SECONDS)
        supervising.result()


async def _listen(stack: AsyncExitStack, app: ASGIApp, host: str, port: int) -> Listener:
    """Open a port until the stack closes."""
    listener = Listener(app, host, port)
    await listener.start()
    stack.push_async_callback(listener.stop)
    log.info("listening at http://%s:%d", host, listener.port)
    return listener


async def _first(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _in_loop(loop: asyncio.AbstractEventLoop, do: Callable[[], None]) -> None:
    loop.call_soon_threadsafe(do)


class _Signals:
    """SIGTERM and SIGINT: the first one asks, one that comes a second or more later insists."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.first: asyncio.Future[None] = loop.create_future()
        self.second: asyncio.Future[None] = loop.create_future()
        self._clock, self._asked = loop.time, 0.0
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._came)

    def _came(self) -> None:
        if not self.first.done():
            self._asked = self._clock()
            self.first.set_result(None)
        elif not self.second.done() and self._clock() - self._asked >= _TWICE_SECONDS:
            self.second.set_result(None)
