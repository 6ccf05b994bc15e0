"""A real HTTP server that speaks the service's contract by a script, and serves the page."""

from __future__ import annotations

import base64
import email
import io
import json
import mimetypes
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from skimage import data

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
    InvalidRequest,
    PreviewEvent,
    ProgressEvent,
    QueuedEvent,
    ResultBuilder,
    Sampler,
    StartedEvent,
    Target,
    Timing,
    WarningEvent,
    parse_form,
    to_ndjson,
)
from ddpm_api.form import numbers
from ddpm_service.page import CSP, FILES

FACE_BOX = (176.0, 64.0, 274.0, 161.0)
CROP_BOX = (144.0, 25.0, 306.0, 186.0)
SECOND_FACE = FoundFace(box=(380, 60, 440, 120), score=0.7)
STEPS = 8


@cache
def portrait(size: int = 512) -> Image.Image:
    """A photograph of one face, from scikit-image."""
    return Image.fromarray(data.astronaut()).resize((size, size))


def file_of(picture: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


def made(picture: Image.Image, parameters: dict[str, Any]) -> bytes:
    """A finished picture's file, with its settings inside."""
    texts = PngInfo()
    texts.add_text("parameters", json.dumps(parameters))
    return file_of(picture, pnginfo=texts)


def base64_of(picture: Image.Image) -> str:
    return base64.b64encode(file_of(picture)).decode()


def generated(seed: int, share: float = 1.0) -> Image.Image:
    """The picture of a seed, as far as it has come: always the same."""
    face = np.asarray(portrait().crop(tuple(map(int, CROP_BOX))).resize((64, 64)), np.float32)
    dice = np.random.default_rng(seed)
    face = face * dice.uniform(0.75, 1.1, 3) + dice.normal(0, 140 * (1 - share), face.shape)
    return Image.fromarray(face.clip(0, 255).astype(np.uint8))


@dataclass
class Service:
    """What the server does, and what it has seen. Set an attribute to change the script."""

    models: list[dict[str, Any]] = field(default_factory=lambda: [model("faces-64", "1.0")])
    ready: bool = True
    token: str | None = None
    faces: int = 1
    refuse: Error | None = None
    """Answer generations with this, before anything else."""
    fail_at: int | None = None
    """Say `error` before this step."""
    cut_at: int | None = None
    """Close the connection before this step, once."""
    wait_at: int | None = None
    """Wait before this step until `go` is set."""
    queue: int = 0
    warning: str | None = None
    chosen: float = 0.5
    """The resemblance that `auto` comes to."""
    seconds: float = 3.2
    """How long a generation says it took."""
    picture: Callable[[int, float], Image.Image] = generated
    step_seconds: float = 0.0
    go: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    """A client left while its stream was open."""
    requests: list[GenerateRequest] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    down: bool = False
    port: int = 0
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def generations(self) -> list[GenerateRequest]:
        return [request for request in self.requests if not request.detect_only]

    @property
    def detections(self) -> list[GenerateRequest]:
        return [request for request in self.requests if request.detect_only]

    def start(self) -> None:
        handler = type("Handler", (_Handler,), {"service": self})
        self.down = False
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Go away: no new connection is taken, and open ones are cut."""
        self.down = True
        self.go.set()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()


def model(name: str, *versions: str) -> dict[str, Any]:
    """An entry of the list of models, its first version the default."""
    common = {"image_size": 64, "defaults": {"num_inference_steps": 25}, "ready": True, "reason": None}
    common["most_calls"] = {"unguided": 1000, "guided": [950, 821, 702, 496, 290]}
    entry = {"id": name, "object": "model", "created": 0, "owned_by": "local", "default_version": versions[0]}
    entry |= {"samplers": [each.value for each in Sampler], "numbers": numbers()}
    return {**entry, "versions": [{"version": each, **common} for each in versions]}


class _Cut(Exception):
    """The connection is closed without a word."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: Service

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def handle(self) -> None:
        with suppress(ConnectionError, _Cut):
            super().handle()

    def _cut(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        raise _Cut

    def do_GET(self) -> None:
        if self.service.down:
            self._cut()
        path = self.path.split("?")[0]
        if path == "/readyz":
            ready = self.service.ready
            waiting = {} if ready else {"faces-64": "1.0 is loading"}
            self._json(200 if ready else 503, {"status": "online" if ready else "starting", "waiting_for": waiting})
        elif path == "/v1/models":
            if self._allowed():
                self._json(200, {"object": "list", "data": self.service.models})
        elif (file := FILES / (path.removeprefix("/page/") if path != "/" else "index.html")).is_file():
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            self._whole(200, file.read_bytes(), kind, {"Content-Security-Policy": CSP})
        else:
            self._json(404, ErrorBody(error=Error(code="not_found", message="Nothing here.")).model_dump())

    def do_POST(self) -> None:
        if self.service.down:
            self._cut()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._allowed():
            return
        form = email.message_from_bytes(b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body)
        parts = {part.get_param("name", header="content-disposition"): part for part in form.get_payload()}
        fields = {
            name: part.get_payload(decode=True) if name == "image" else part.get_payload(decode=True).decode()
            for name, part in parts.items()
        }
        try:
            request = parse_form(fields)
        except InvalidRequest as problem:
            self._json(problem.status, problem.body.model_dump())
            return
        self.service.paths.append(self.path)
        self.service.requests.append(request)
        if request.detect_only:
            self._detect(request)
        elif self.service.refuse is not None:
            error = self.service.refuse
            self._json(error.status, ErrorBody(error=error).model_dump(), {"Retry-After": str(error.retry_after or 1)})
        else:
            self._stream(request)

    def _allowed(self) -> bool:
        token = self.headers.get("Authorization")
        self.service.tokens.append(token)
        if self.service.token is None or token == f"Bearer {self.service.token}":
            return True
        self._json(401, ErrorBody(error=Error(code="unauthorized", message="A token is needed.")).model_dump())
        return False

    def _detect(self, request: GenerateRequest) -> None:
        try:
            Image.open(io.BytesIO(request.image or b"")).load()
        except OSError:
            error = Error(code="not_an_image", message="The file is not a picture.", field="image")
            self._json(415, ErrorBody(error=error).model_dump())
            return
        builder = ResultBuilder()
        builder.feed(FacesEvent(id="d", model="faces-64", version="1.0", target=self._target(request)))
        builder.feed(EndEvent(timing=Timing(queue_seconds=0, seconds=0, calls=0)))
        self._whole(200, builder.result().to_json(), "application/json")

    def _target(self, request: GenerateRequest) -> Target:
        width, height = Image.open(io.BytesIO(request.image or b"")).size
        scale = min(width, height) / 512
        faces = [FoundFace(box=FACE_BOX, score=0.9), SECOND_FACE][: self.service.faces]
        if request.face:
            left, top, right, bottom = SECOND_FACE.box
            box = (left - 20, top - 20, right + 20, bottom + 20)
        else:
            box = CROP_BOX if faces else (0.0, 0.0, 512.0, 512.0)
        crop = portrait().crop(tuple(map(int, box))).resize((64, 64))
        scaled = [FoundFace(box=tuple(edge * scale for edge in face.box), score=face.score) for face in faces]
        chosen = (request.face or 0) if faces else None
        box = tuple(edge * scale for edge in box)
        return Target(faces=scaled, face=chosen, box=box, b64_json=base64_of(crop))

    def _stream(self, request: GenerateRequest) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for event in self._events(request):
                self._chunk(to_ndjson(event))
            self._chunk(b"")
        except ConnectionError:
            self.service.left.set()
            raise

    def _events(self, request: GenerateRequest) -> Iterator[Event]:
        service = self.service
        for position in range(service.queue, 0, -1):
            yield QueuedEvent(id="r", position=position)
            self._pause(0)
        seed = 4711 if request.seed == -1 else request.seed
        parameters = {**request.parameters(), "seed": seed, "num_inference_steps": STEPS}
        if request.image:
            chosen = {"celebrity": 0.25, "faithful": 0.75}.get(request.mode, service.chosen)
            parameters["resemblance"] = chosen if request.resemblance is None else request.resemblance
        if service.warning:
            yield WarningEvent(code="note", message=service.warning)
        target = self._target(request) if request.image else None
        yield StartedEvent(id="r", model="faces-64", version="1.0", seed=seed, parameters=parameters, target=target)
        for step in range(1, STEPS + 1):
            if service.fail_at == step:
                yield ErrorEvent(error=Error(code="out_of_memory", message="There was not enough memory."))
                return
            if service.cut_at == step:
                service.cut_at = None
                self._cut()
            if service.wait_at == step:
                while not service.go.wait(0.05):
                    self._chunk(b"\n")
            self._pause(step)
            yield ProgressEvent(step=step, total_steps=STEPS, eta_seconds=0.4 * (STEPS - step))
            for index in range(request.num_images):
                last = step == STEPS or (step == STEPS - 1 and index < 2)
                picture = service.picture(seed + index, step / STEPS)
                if not last:
                    yield PreviewEvent(step=step, index=index, content_type="image/png", b64_json=base64_of(picture))
                elif step == STEPS - 1 or index >= 2:
                    inside = parameters | {"seed": seed + index, "model": "faces-64", "version": "1.0"}
                    yield ImageEvent(
                        index=index,
                        seed=seed + index,
                        resemblance_score=0.5 + 0.05 * ((index + 1) % 5) if request.image else None,
                        width=64,
                        height=64,
                        content_type="image/png",
                        b64_json=base64.b64encode(made(service.picture(seed + index, 1.0), inside)).decode(),
                    )
        yield EndEvent(timing=Timing(queue_seconds=0.1, seconds=service.seconds, calls=STEPS))

    def _pause(self, step: int) -> None:
        if self.service.step_seconds:
            threading.Event().wait(self.service.step_seconds)
        if self.service.down:
            self._cut()

    def _chunk(self, piece: bytes) -> None:
        if self.service.down:
            self._cut()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def _json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self._whole(status, json.dumps(body).encode(), "application/json", headers)

    def _whole(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
