"""A real HTTP server that speaks the service's protocol by a script: the model's name says what happens."""

from __future__ import annotations

import base64
import email
import io
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from ddpm_api import (
    EndEvent,
    Error,
    ErrorBody,
    ErrorEvent,
    Event,
    FoundFace,
    GenerateRequest,
    ImageEvent,
    ProgressEvent,
    QueuedEvent,
    StartedEvent,
    Target,
    Timing,
    WarningEvent,
    parse_form,
    parse_json,
    to_ndjson,
)


def picture_file(colour: str) -> bytes:
    """A PNG of 8 × 8 pixels."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


def face_event(index: int, colour: str) -> ImageEvent:
    """A finished picture, seed 7 + index."""
    data = base64.b64encode(picture_file(colour)).decode()
    return ImageEvent(
        index=index,
        seed=7 + index,
        resemblance_score=0.5 + 0.25 * index,
        width=8,
        height=8,
        content_type="image/png",
        b64_json=data,
    )


TARGET = Target(
    faces=[FoundFace(box=(1, 2, 3, 4), score=1)],
    face=0,
    box=(0, 0, 5, 5),
    b64_json=base64.b64encode(picture_file("black")).decode(),
)
EVENTS: list[Event] = [
    QueuedEvent(id="r1", position=3),
    WarningEvent(code="dim", message="The light is poor."),
    StartedEvent(id="r1", model="good", version="1.0", seed=7, parameters={"mode": "auto"}, target=TARGET),
    ProgressEvent(step=1, total_steps=2, eta_seconds=1.5),
    face_event(1, "blue"),
    face_event(0, "red"),
    EndEvent(timing=Timing(queue_seconds=0.1, seconds=0.2, calls=2)),
]
BUSY = Error(code="busy", message="The queue is full.")


@dataclass
class Service:
    """The server's address, and what it has seen."""

    url: str = ""
    ports: set[int] = field(default_factory=set)
    """The clients' ends of the connections."""
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    requests: list[GenerateRequest] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    """A client left while its stream was open."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: Service

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client may leave at any time
            super().handle()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.service.ports.add(self.client_address[1])
        self.service.paths.append(self.path)
        self.service.headers.append(dict(self.headers))
        self.service.requests.append(self._parsed(body))
        getattr(self, "_" + self.path.split("/")[2])()

    def _parsed(self, body: bytes) -> GenerateRequest:
        kind = self.headers["Content-Type"]
        if kind == "application/json":
            return parse_json(json.loads(body))
        form = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
        parts = {part.get_param("name", header="content-disposition"): part for part in form.get_payload()}
        return parse_form({name: part.get_payload(decode=True) for name, part in parts.items()})

    def _whole(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _send(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _good(self) -> None:
        self._begin()
        for event in EVENTS:
            line = to_ndjson(event)
            self._send(line[:9])  # a line may arrive in pieces, and heartbeats in between
            self._send(line[9:] + b"\n")
        self.wfile.write(b"0\r\n\r\n")

    def _waiting(self) -> None:
        self._stay(EVENTS[:1])

    def _endless(self) -> None:
        self._stay(EVENTS[:5])

    def _stay(self, events: list[Event]) -> None:
        """Send heartbeats until the client leaves."""
        self._begin()
        self._send(b"".join(map(to_ndjson, events)))
        try:
            while not self.service.left.wait(0.01):
                self._send(b"\n")
        except OSError:
            self.service.left.set()
        self.close_connection = True

    def _cut(self) -> None:
        """The connection breaks in the middle of a line."""
        self._begin()
        self._send(b"".join(to_ndjson(event) for event in EVENTS[:4]) + b'{"event": "ima')
        self.close_connection = True

    def _short(self) -> None:
        """The stream ends properly, but without `end`."""
        self._begin()
        self._send(b"".join(to_ndjson(event) for event in EVENTS[:-1]))
        self.wfile.write(b"0\r\n\r\n")

    def _failing(self) -> None:
        self._begin()
        self._send(to_ndjson(EVENTS[0]) + to_ndjson(ErrorEvent(error=Error(code="out_of_memory", message="Too big."))))
        self.wfile.write(b"0\r\n\r\n")

    def _refusing(self) -> None:
        error = Error(code="not_an_image", message="That is no picture.", field="image", allowed="PNG, JPEG")
        self._whole(415, ErrorBody(error=error).to_json())

    def _full(self) -> None:
        self._whole(503, ErrorBody(error=BUSY).to_json())

    def _busy(self) -> None:
        self._whole(503, ErrorBody(error=BUSY).to_json(), Retry_After="0")

    def _soon(self) -> None:
        """Busy for the first two times."""
        self._busy() if len(self.service.paths) < 3 else self._good()

    def _limited(self) -> None:
        self._whole(429, b"", Retry_After="9")

    def _unknown(self) -> None:
        message = {"code": 404, "type": "ModelNotFoundException", "message": "Model not found: unknown"}
        self._whole(404, json.dumps(message).encode())

    def _large(self) -> None:
        self._whole(413, b"")

    def _broken(self) -> None:
        self._whole(500, b"<html>oops</html>", Content_Type="text/html")

    def _vanishing(self) -> None:
        self.close_connection = True

    def _stranger(self) -> None:
        self._whole(200, b"<html>hello</html>", Content_Type="text/html")

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@pytest.fixture
def service() -> Iterator[Service]:
    seen = Service()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"service": seen}))
    seen.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield seen
    seen.left.set()
    server.shutdown()
    thread.join()
    server.server_close()
