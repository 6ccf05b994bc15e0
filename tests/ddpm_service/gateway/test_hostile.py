"""Clients that mean harm or are merely slow: bounded memory, bounded time, never a 500, one shape."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest

from ddpm_service.gateway import protocol
from ddpm_service.gateway.logs import JsonLines
from tests.ddpm_service.gateway.wire import hang_up, raw

pytestmark = pytest.mark.anyio

TOKEN, OTHER = "alices-token-of-many", "bobs-token-of-so-many"
TOKENS = f"alice {TOKEN}\nbob {OTHER}\n"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("path", ["/predictions/faces", "/v1/images/generations", "/generate", "/v1/models", "/config"])
@pytest.mark.parametrize("headers", [{}, bearer("wrong-token-of-many"), {"Authorization": "Basic x"}])
async def test_without_a_token_nothing_is_told_but_health(open_house, path, headers):
    async with open_house(tokens=TOKENS) as house:
        method = "GET" if path in ("/v1/models", "/config") else "POST"
        async with house.client.request(method, path, headers=headers) as response:
            document = await response.json()
        assert (response.status, document["error"]["code"]) == (401, "unauthorized")
        assert response.headers["WWW-Authenticate"] == "Bearer"
        for free in ("/healthz", "/readyz", "/ping", "/openapi.json", "/"):
            async with house.client.get(free) as response:
                assert response.status == 200


async def test_each_token_has_its_own_rate_and_places(open_house):
    async with open_house(tokens=TOKENS, rate_per_minute=3, max_open_per_token=1) as house:
        async with house.client.post(
            "/predictions/endless", json={}, headers=bearer(TOKEN) | {"Accept": "text/event-stream"}
        ):
            async with house.client.post("/predictions/faces", json={}, headers=bearer(TOKEN)) as second:
                assert (second.status, (await second.json())["error"]["code"]) == (429, "rate_limited")
                assert int(second.headers["Retry-After"]) >= 1
            async with house.client.post("/predictions/faces", json={}, headers=bearer(OTHER)) as other:
                assert other.status == 200
        await house.upstream.idle.wait()
        statuses = []
        for _ in range(2):
            async with house.client.post("/predictions/faces", json={}, headers=bearer(TOKEN)) as response:
                statuses.append(response.status)
        assert statuses == [200, 429]


async def test_more_clients_than_places_are_refused_in_order_and_the_rest_is_answered(open_house):
    async with open_house(max_open=20) as house:
        house.upstream.release.set()
        statuses: Counter[int] = Counter()

        async def ask() -> None:
            async with house.client.post("/predictions/silent", json={"num_images": 1}) as response:
                await response.read()
                statuses[response.status] += 1
                assert response.status == 200 or "Retry-After" in response.headers
            async with house.client.get("/readyz") as ready:
                assert ready.status == 200

        await asyncio.gather(*(ask() for _ in range(60)))
        assert statuses.keys() <= {200, 503}
        assert statuses[200] >= 20
        assert house.upstream.most_open <= 20


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_long_is_413(open_house, chunked):
    async with open_house(max_bytes=100_000) as house:
        body = b"x" * 100_001

        async def pieces():
            yield body

        data = pieces() if chunked else body
        async with house.client.post("/predictions/faces", data=data) as response:
            error = (await response.json())["error"]
        assert (response.status, error["code"]) == (413, "too_large")
        assert "100000" in error["allowed"]
        async with house.client.post("/predictions/faces", data=b"x" * 100_000) as response:
            assert response.status == 200


async def test_uploads_together_are_bounded(open_house):
    async with open_house(max_bytes=1000_000, max_upload_bytes=1500_000) as house:
        head = b"POST /predictions/faces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
        _, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(head + b"x" * 999_000)
        await asyncio.sleep(0.1)
        status, headers, _ = await raw(house, head)
        assert (status, headers["retry-after"]) == (503, "5")
        async with house.client.post("/predictions/faces", json={}) as response:
            assert response.status == 200
        await hang_up(writer)
        await asyncio.sleep(0.1)
        async with house.client.post("/predictions/faces", data=b"x" * 1000_000) as response:
            assert response.status == 200


@pytest.mark.parametrize(
    ("media", "body", "status", "code"),
    [
        ("application/x-www-form-urlencoded", b"image=" + b"%41" * 30_000, 415, "unsupported_media_type"),
        ("application/json", b"[" + b"1," * 20_000 + b"1]", 413, "too_large"),
    ],
)
async def test_a_body_that_would_take_seconds_to_parse_is_refused(house, media, body, status, code):
    async with house.client.post("/predictions/faces", data=body, headers={"Content-Type": media}) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (status, code)


async def test_a_body_that_trickles_is_408(open_house):
    async with open_house(upload_seconds=0.3) as house:
        head = b"POST /predictions/faces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
        status, _, body = await raw(house, head, *[b"x"] * 10, pause=0.05)
        assert (status, json.loads(body)["error"]["code"]) == (408, "upload_timeout")
        assert await house.door.gate.drain(5)


async def test_a_head_that_trickles_is_cut(house, monkeypatch):
    monkeypatch.setattr(protocol, "_HEAD_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    for _ in range(200):
        if reader.at_eof() or reader.exception():
            break
        writer.write(b"X")
        await asyncio.sleep(0.02)
    else:
        pytest.fail("it waits for ever")
    await hang_up(writer)


async def test_a_connection_is_kept_for_the_next_request(house):
    head = (
        b"POST /predictions/faces HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    for _ in range(3):
        writer.write(head)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        await reader.readexactly(0)
    await hang_up(writer)
    assert len(house.upstream.paths) == 3


@pytest.mark.parametrize(
    "bomb",
    [
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)),
        b"GET / HTTP/1.1\r\nX: " + b"y" * 1_000_000,
        b"GET /" + b"y" * 1_000_000,
    ],
)
async def test_a_head_that_is_too_large_is_refused(house, bomb):
    status, _, body = await raw(house, *[bomb[at : at + 30_000] for at in range(0, 90_000, 30_000)], pause=0.02)
    assert (status, json.loads(body)["error"]["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize(
    "text", [b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03"]
)
async def test_what_is_not_http_is_refused_in_the_same_shape(house, text):
    status, _, body = await raw(house, text)
    assert (status, json.loads(body)["error"]["code"]) == (400, "malformed_request")


@pytest.mark.parametrize("accept", ["", "x", "*/*;q=0", "image/", ",,,", "a/b;q=9", "text/html"])
async def test_any_accept_header_is_answered_or_406(house, accept):
    async with house.client.post("/predictions/faces", json={}, headers={"Accept": accept}) as response:
        assert response.status in {200, 406}


async def test_a_length_that_lies_is_no_500(house):
    for length in (b"-5", b"x", b"99999999999999999999"):
        head = b"POST /predictions/faces HTTP/1.1\r\nHost: localhost\r\nContent-Length: %s\r\n\r\n" % length
        status, _, _ = await raw(house, head)
        assert status in {400, 413}


async def test_a_web_page_may_ask_only_from_a_listed_origin(open_house):
    async with open_house(cors_origins=("https://faces.example",), tokens=TOKENS) as house:
        for origin, allowed in {"https://faces.example": True, "https://evil.example": False}.items():
            headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            async with house.client.options("/predictions/faces", headers=headers) as response:
                assert (response.headers.get("Access-Control-Allow-Origin") == origin) == allowed
            async with house.client.post("/predictions/faces", headers={"Origin": origin}) as response:
                assert response.status == (401 if allowed else 403)
                assert ("Access-Control-Allow-Origin" in response.headers) == allowed


async def test_without_a_list_no_other_web_page_may_ask(house):
    async with house.client.post("/predictions/faces", json={}, headers={"Origin": "https://x.example"}) as response:
        assert "Access-Control-Allow-Origin" not in response.headers


async def test_a_broken_part_of_ours_is_a_500_without_its_insides(house, lines, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("a piece of a picture")

    monkeypatch.setattr(house.door.gate, "admit", broken)
    async with house.client.post("/predictions/faces", json={}) as response:
        document = await response.json()
    assert (response.status, document["error"]["code"]) == (500, "internal")
    assert "piece" not in document["error"]["message"]
    said = [JsonLines().format(record) for record in lines.records]
    assert any("RuntimeError at test_hostile.py" in line for line in said)
    assert not any("a piece of a picture" in line for line in said)
