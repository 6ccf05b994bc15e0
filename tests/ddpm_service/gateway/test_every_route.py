"""What holds for every route of the front door, found by walking them, so that a new one cannot be forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.routing import Mount, Route

from ddpm_service.gateway.app import create_app
from tests.ddpm_service.gateway.wire import raw

pytestmark = pytest.mark.anyio

TOKEN = "a-token-of-24-characters"
# What is told to whom no token was given: health, that a token is needed, the page, and the document of the API.
OPEN = {"/", "/healthz", "/readyz", "/ping", "/openapi.json", "/page/index.html"}
READING = {"POST", "PUT", "PATCH"}


def walk(routes: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for route in routes:
        if isinstance(route, Mount):
            inner = list(route.routes)
            yield from walk(inner, prefix + route.path) if inner else [("GET", prefix + route.path + "/index.html")]
        elif included := getattr(route, "original_router", None):
            yield from walk(included.routes, prefix)
        elif isinstance(route, Route):
            path = route.path.replace("{name}", "faces").replace("{version}", "1")
            for method in route.methods or ():
                yield method, prefix + path


def routes(house: Any) -> list[tuple[str, str]]:
    found = sorted(set(walk(create_app(house.door).routes)))
    assert len(found) > 20
    assert all("{" not in path for _, path in found)
    return found


async def ask(house: Any, method: str, path: str, *headers: str, body: bytes = b"") -> int:
    head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""])
    code, answered, _ = await raw(house, head.encode() + body)
    assert answered["x-request-id"]
    return code


async def test_each_wants_a_token_or_is_open_on_purpose(open_house) -> None:
    async with open_house(tokens=TOKEN) as house:
        for method, path in routes(house):
            if method == "HEAD":
                continue  # as GET; its answer has no body to wait for
            code = await ask(house, method, path, "Content-Length: 0")
            assert (code != 401) == (path in OPEN), (method, path, code)


async def test_each_takes_a_bounded_body(open_house) -> None:
    async with open_house(tokens=TOKEN, max_bytes=5000) as house:
        for method, path in routes(house):
            if method == "HEAD":
                continue
            sent = f"Authorization: Bearer {TOKEN}"
            assert await ask(house, method, path, sent, "Content-Length: 5001") == 413, (method, path)
            chunk = b"1389\r\n" + bytes(0x1389) + b"\r\n"
            chunked = await ask(house, method, path, sent, "Transfer-Encoding: chunked", body=chunk)
            assert chunked == 413, (method, path)


async def test_each_waits_a_bounded_time_for_a_body(open_house) -> None:
    async with open_house(upload_seconds=0.1) as house:
        for method, path in routes(house):
            code = await ask(house, method, path, "Content-Length: 10") if method != "HEAD" else 200
            assert code == 408 if method in READING else code == 200 or path.endswith("ready"), (method, path, code)


async def test_names_and_figures_are_told_to_whom_a_token_was_given(open_house) -> None:
    async with open_house(tokens=TOKEN) as house:
        house.board.put("secret", "1", house.board.models()["faces"].versions["2"])
        for path in ("/", "/readyz", "/ping"):
            async with house.client.get(path) as response:
                told = await response.text()
            assert "secret" not in told
            assert "faces" not in told
        async with house.client.get("/", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
            assert "secret" in (await response.json())["models"]
        async with house.client.get("/readyz", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
            assert "secret" in (await response.json())["waiting_for"]
