"""Requests to TorchServe's APIs at unix sockets, with its keys."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import pytest
import requests

from ddpm_service.torchserve.api import KEYS, Api


class Told(BaseHTTPRequestHandler):
    """Answers what it was asked, and by which key."""

    protocol_version = "HTTP/1.1"
    connections: ClassVar[set[object]] = set()

    def do_GET(self) -> None:
        body = json.dumps([self.path, self.headers["Authorization"]]).encode()
        self.connections.add(self.connection)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / KEYS).write_text(json.dumps({"management": {"key": "m"}, "inference": {"key": "i"}}))
    with socketserver.ThreadingUnixStreamServer(str(tmp_path / "api"), Told) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield tmp_path
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("key", "sent"), [("management", "Bearer m"), ("inference", "Bearer i")])
def test_a_request_carries_its_key(folder: Path, key: str, sent: str) -> None:
    answer = Api(f"unix:{folder}/api", key).request("GET", "/models", params={"limit": "1"}, timeout=5)

    assert answer.json() == ["/models?limit=1", sent]


def test_a_new_start_has_new_keys(folder: Path) -> None:
    api = Api(f"unix:{folder}/api", "inference")
    (folder / KEYS).write_text(json.dumps({"inference": {"key": "new"}}))

    assert api.request("GET", "/", timeout=5).json() == ["/", "Bearer new"]


def test_a_session_keeps_its_connection(folder: Path) -> None:
    api = Api(f"unix:{folder}/api")
    Told.connections.clear()

    with api.session() as session:
        assert [session.get(api.url + path, timeout=5).json()[0] for path in ("/a", "/b")] == ["/a", "/b"]

    assert len(Told.connections) == 1


def test_a_socket_that_is_gone_is_told_as_a_failed_connection(tmp_path: Path) -> None:
    with pytest.raises(requests.ConnectionError):
        Api(f"unix:{tmp_path}/api").request("GET", "/", timeout=5)


def test_a_port_needs_no_key() -> None:
    assert Api("http://127.0.0.1:9").headers() == {}
