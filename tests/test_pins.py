"""The insides of others that are used here: each is there in the version that constraints.txt names."""

from __future__ import annotations

import asyncio
import io
import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from ddpm_service.gateway.app import Outside

CONSTRAINTS = (Path(__file__).parent.parent / "constraints.txt").read_text(encoding="utf-8")
PINS = dict(re.findall(r"^([\w-]+)==([\w.]+)$", CONSTRAINTS, re.MULTILINE))


@pytest.mark.parametrize("name", PINS)
def test_the_tests_run_with_the_version_that_is_pinned(name: str) -> None:
    assert version(name).partition("+")[0] == PINS[name]


def test_uvicorn_keeps_the_answer_under_way_in_cycle() -> None:
    """`gateway/protocol.py`: a pipelined request ends its connection after the answer before it."""
    assert "uvicorn" in PINS

    async def made() -> HttpToolsProtocol:
        config = uvicorn.Config(lambda *_: None)
        config.load()
        return HttpToolsProtocol(config, ServerState(), {})

    assert asyncio.run(made()).cycle is None
    assert {"response_complete", "keep_alive"} <= set(RequestResponseCycle.__init__.__code__.co_names)


def test_pillow_heif_tells_what_its_decoder_has_turned() -> None:
    """`faces/files/bmff.py`: EXIF's turn is not done a second time."""
    assert "pillow-heif" in PINS
    file = io.BytesIO()
    pillow_heif.from_bytes("RGB", (32, 16), np.zeros((16, 32, 3), np.uint8).tobytes()).save(file)
    kinds = {kind for kind, *_ in pillow_heif.open_heif(file.getvalue())[0]._c_image.transformations}
    assert kinds <= {"clap"}


def test_the_front_door_answers_under_a_server_that_has_none_of_ours() -> None:
    sent: list[dict] = []

    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "http_version": "1.1"}
    asyncio.run(Outside(Starlette(routes=[Route("/", lambda _: Response("here"))]))(scope, receive, send))
    assert [message.get("status", message.get("body")) for message in sent] == [200, b"here"]
