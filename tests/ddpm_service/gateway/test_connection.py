"""HTTP/1.1 on a connection, beyond what usual clients do: unread answers, trailers, other protocols, pipelines."""

from __future__ import annotations

import asyncio
import json
import socket

import psutil
import pytest

from ddpm_service.gateway import protocol
from tests.ddpm_service.gateway import conftest
from tests.ddpm_service.gateway.wire import hang_up, raw

pytestmark = pytest.mark.anyio

POST = b"POST /predictions/%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def is_held(house, port: int) -> bool:
    """Whether the front door still holds the connection with this port of the client."""
    connections = psutil.Process().net_connections("tcp")
    return any(each.laddr.port == house.port and each.raddr and each.raddr.port == port for each in connections)


async def until(condition) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
async def test_a_client_that_reads_nothing_of_an_answer_is_left(house, monkeypatch, more):
    monkeypatch.setattr(protocol, "_UNREAD_SECONDS", 0.5)
    monkeypatch.setattr(conftest, "encoded", lambda **_: "A" * 12_000_000)
    body = b"Accept: application/json\r\nContent-Length: 2\r\n\r\n{}"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", house.port))
        await loop.sock_sendall(client, POST % b"faces" + more + body)
        await until(lambda: house.upstream.requests and not house.upstream.open)
        await until(lambda: not is_held(house, client.getsockname()[1]))


@pytest.mark.parametrize("trailer", [b"a:b\r\n" * 10_000, b"y" * 50_000], ids=["many", "long"])
async def test_trailers_without_end_are_cut(house, trailer):
    _, writer = await asyncio.open_connection("127.0.0.1", house.port)
    port = writer.get_extra_info("sockname")[1]
    writer.write(POST % b"faces" + b"Transfer-Encoding: chunked\r\n\r\n0\r\nx: ")
    for _ in range(40):
        writer.write(trailer)
        await asyncio.sleep(0.01)
    await until(lambda: not is_held(house, port))
    await hang_up(writer)


async def test_a_trailer_is_no_header(house):
    body = b"2\r\n{}\r\n0\r\nAccept: text/html\r\n\r\n"
    status, headers, _ = await raw(house, POST % b"faces" + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert (status, headers["content-type"]) == (200, "application/json")


@pytest.mark.parametrize("name", [b"Upgrade", b"upgrade"])
async def test_a_wish_for_another_protocol_is_passed_over(house, name):
    wish = b"Connection: Upgrade, HTTP2-Settings\r\n%s: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n" % name
    body = b'{"num_images": 2}'
    status, _, answer = await raw(house, POST % b"faces" + wish + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert (status, len(json.loads(answer)["images"])) == (200, 2)


async def test_who_asks_again_before_the_answer_gets_that_answer_and_then_the_end(house):
    head = POST % b"faces" + b"Content-Length: 2\r\n\r\n{}"
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(head + head)
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert b"connection: close" in answer.lower()
    assert len(house.upstream.paths) == 1
    await hang_up(writer)


async def test_who_asks_again_before_the_answer_and_leaves_is_seen_to_leave(house):
    _, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(POST % b"silent" + b"Content-Length: 2\r\n\r\n{}")
    await until(lambda: house.upstream.open)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await writer.drain()
    await hang_up(writer)
    await asyncio.wait_for(house.upstream.idle.wait(), 10)
    assert await house.door.gate.drain(5)
