"""The front door on a real port, before a scripted upstream that speaks TorchServe's side of the protocol.

The model's name says what happens to a request.
"""

from __future__ import annotations

import asyncio
import base64
import email
import io
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from PIL import Image

from ddpm_api import (
    EndEvent,
    Error,
    ErrorBody,
    ErrorEvent,
    Event,
    FacesEvent,
    FoundFace,
    GenerateRequest,
    ImageEvent,
    PreviewEvent,
    ProgressEvent,
    QueuedEvent,
    StartedEvent,
    Target,
    Timing,
    parse_form,
    parse_json,
    parse_raw,
    to_ndjson,
)
from ddpm_api.events import NDJSON_HEARTBEAT
from ddpm_service.gateway.app import create_app
from ddpm_service.gateway.auth import Tokens
from ddpm_service.gateway.backend import TorchServeBackend
from ddpm_service.gateway.door import Door
from ddpm_service.gateway.gate import Gate
from ddpm_service.gateway.limits import Limits
from ddpm_service.gateway.listener import Listener
from ddpm_service.gateway.metrics import Metrics
from ddpm_service.gateway.settings import Settings
from ddpm_service.torchserve.board import Board, State, VersionState
from ddpm_service.torchserve.pulse import Pulse

MANIFEST = {
    "image_size": 8,
    "channels": 3,
    "domain": "human_face",
    "defaults": {"sampler": "dpmpp_2m", "num_inference_steps": 4},
    "provenance": {"terms": "Research use only."},
}
OFFERS = {"most_calls": {"unguided": 100, "guided": [90, 30]}}
SCRIPTS = (
    "faces",
    "endless",
    "silent",
    "loses",
    "late",
    "cut",
    "short",
    "garbled",
    "busy",
    "gone",
    "large",
    "broken",
    "died",
    "flood",
)


def encoded(colour: str = "red", kind: str = "png") -> str:
    """A picture of 8 × 8 pixels in base64."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


@dataclass
class Upstream:
    """What the scripted upstream has seen."""

    LOST, LOST_LATER, QUEUED = 1, 2, 3

    url: str = ""
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    requests: list[GenerateRequest] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    release: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        self.idle.clear()
        try:
            return await self._answer(request)
        finally:
            self.open -= 1
            if not self.open:
                self.idle.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        self.headers.append(dict(request.headers))
        asked = await self._parse(request)
        self.requests.append(asked)
        script = request.match_info["name"]
        plain = {
            "busy": (503, ErrorBody(error=Error(code="busy", message="Full.")).to_json(), {"Retry-After": "7"}),
            "gone": (404, b'{"code": 404, "type": "ModelNotFoundException", "message": "Model not found"}', {}),
            "large": (413, b"", {}),
            "broken": (500, b"<html>at org.pytorch.serve.Secret</html>", {}),
            "died": (500, b'{"code": 500, "type": "InternalServerException", "message": "Worker died."}', {}),
        }
        if script in plain:
            status, body, headers = plain[script]
            return web.Response(status=status, body=body, headers=headers)
        if script == "loses" and asked.seed == Upstream.LOST:
            await self.release.wait()
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        name = request.headers["X-Request-Id"]
        async for event in getattr(self, "_" + script.partition("-")[0])(asked, name):
            if event is None:
                assert request.transport is not None
                request.transport.abort()
                break
            await response.write(event if isinstance(event, bytes) else to_ndjson(event))
        return response

    async def _parse(self, request: web.Request) -> GenerateRequest:
        if request.content_type == "application/json":
            return parse_json(await request.json())
        if request.content_type == "multipart/form-data":
            # Not by aiohttp, which would write a temporary file.
            head = b"Content-Type: " + request.headers["Content-Type"].encode() + b"\r\n\r\n"
            parts: Any = email.message_from_bytes(head + await request.read()).get_payload()
            names = [part.get_param("name", header="content-disposition") for part in parts]
            return parse_form(dict(zip(names, [part.get_payload(decode=True) for part in parts], strict=True)))
        assert request.content_type == "application/octet-stream"
        return parse_raw(await request.read())

    async def _faces(self, asked: GenerateRequest, name: str) -> AsyncIterator[Event | bytes]:
        if asked.detect_only:
            yield FacesEvent(id=name, model="faces", version="1", target=TARGET)
            yield END
            return
        yield QueuedEvent(id=name, position=1)
        target = TARGET if asked.image else None
        parameters = asked.parameters()
        yield StartedEvent(id=name, model="faces", version="1", seed=5, parameters=parameters, target=target)
        for step in range(1, 5):
            yield to_ndjson(ProgressEvent(step=step, total_steps=4, eta_seconds=0.1))[:20]
            await asyncio.sleep(0)
            yield to_ndjson(ProgressEvent(step=step, total_steps=4, eta_seconds=0.1))[20:] + b"\n"
            if asked.preview_every and step % asked.preview_every == 0 and step < 4:
                for index in range(asked.num_images):
                    # A preview carries its owner's name, so that a test sees where it goes.
                    owner = base64.b64encode(name.encode()).decode()
                    yield PreviewEvent(step=step, index=index, content_type="image/jpeg", b64_json=owner)
        kind = asked.output_format.value
        for index in reversed(range(asked.num_images)):
            picture = encoded(kind=kind)
            yield ImageEvent(
                index=index, seed=5 + index, width=8, height=8, content_type=f"image/{kind}", b64_json=picture
            )
        yield END

    async def _endless(self, asked: GenerateRequest, name: str) -> AsyncIterator[Event | bytes]:
        yield QueuedEvent(id=name, position=1)
        while True:
            yield ProgressEvent(step=1, total_steps=4)
            await asyncio.sleep(0.01)

    async def _silent(self, asked: GenerateRequest, name: str) -> AsyncIterator[Event | bytes]:
        yield QueuedEvent(id=name, position=1)
        await self.release.wait()
        async for event in self._faces(asked, name):
            yield event

    async def _loses(self, asked: GenerateRequest, name: str) -> AsyncIterator[Event | bytes]:
        """Answers all but requests with certain seeds."""
        yield QueuedEvent(id=name, position=1)
        if asked.seed == Upstream.LOST_LATER:
            await self.release.wait()
        while not self.release.is_set():
            yield NDJSON_HEARTBEAT if asked.seed == Upstream.QUEUED else ProgressEvent(step=1, total_steps=4)
            await asyncio.sleep(0.01)
        yield END

    async def _late(self, asked: GenerateRequest, name: str) -> AsyncIterator[Event | bytes]:
        yield QueuedEvent(id=name, position=1)
        yield ErrorEvent(error=Error(code="out_of_memory", message="Too big."))

    async def _cut(self, asked: GenerateRequest, name: str) -> AsyncIterator[Event | bytes | None]:
        yield QueuedEvent(id=name, position=1)
        await asyncio.sleep(0.05)
        yield None

    async def _short(self, asked: GenerateRequest, name: str) -> AsyncIterator[Event | bytes]:
        yield QueuedEvent(id=name, position=1)

    async def _garbled(self, asked: GenerateRequest, name: str) -> AsyncIterator[Event | bytes]:
        yield QueuedEvent(id=name, position=1)
        yield b'{"event": "surprise"}\n'

    async def _flood(self, asked: GenerateRequest, name: str) -> AsyncIterator[Event | bytes]:
        yield QueuedEvent(id=name, position=1)
        while True:
            yield PreviewEvent(step=1, index=0, content_type="image/jpeg", b64_json="A" * 100_000)


TARGET = Target(faces=[FoundFace(box=(1, 2, 3, 4), score=1)], face=0, box=(0, 0, 5, 5))
END = EndEvent(timing=Timing(queue_seconds=0.1, seconds=0.2, calls=4))


@dataclass
class House:
    """A running front door, and what stands behind it."""

    url: str
    port: int
    door: Door
    upstream: Upstream
    client: aiohttp.ClientSession

    @property
    def board(self) -> Board:
        return self.door.board


Open = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def open_house(tmp_path) -> Open:
    """Run a front door with these settings, and a file of tokens where some are given."""

    @asynccontextmanager
    async def run(*, tokens: str | None = None, host: str = "127.0.0.1", **settings: Any) -> AsyncIterator[House]:
        upstream = Upstream()
        application = web.Application(client_max_size=2**26)
        application.router.add_post("/predictions/{name}/{version}", upstream.answer)
        async with AsyncExitStack() as stack:
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            board = Board()
            for script in SCRIPTS:
                board.put(
                    script, "1", VersionState(f"{script}_1.mar", State.READY, None, MANIFEST, 3 * 2**19, None, OFFERS)
                )
            board.put("faces", "2", VersionState("faces_2.mar", State.FAILED, "ValueError: broken weights", MANIFEST))
            board.started()
            backend = TorchServeBackend(upstream.url, board, Pulse())
            stack.push_async_callback(backend.close)
            loop = asyncio.get_running_loop()
            board.listen(lambda: loop.call_soon_threadsafe(backend.end_lost))
            chosen = Settings(**settings)
            file = tmp_path / "tokens"
            if tokens is not None:
                file.write_text(tokens)
            gate = Gate(backend, Limits(chosen), None if tokens is None else Tokens(file), Metrics())
            door = Door(gate, board, chosen, host)
            listener = Listener(create_app(door), "127.0.0.1", 0)
            await listener.start()
            stack.push_async_callback(listener.stop)
            url = f"http://127.0.0.1:{listener.port}"
            client = await stack.enter_async_context(aiohttp.ClientSession(url, auto_decompress=False))
            yield House(url, listener.port, door, upstream, client)

    return run


@pytest.fixture
async def house(open_house: Open) -> AsyncIterator[House]:
    """A front door with the usual settings, without tokens."""
    async with open_house() as running:
        yield running


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged."""
    caplog.set_level(logging.INFO, "ddpm")
    return caplog
