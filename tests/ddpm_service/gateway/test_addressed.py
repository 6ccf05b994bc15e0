"""The front door answers those who mean it: not other names, not pages of other sites."""

from __future__ import annotations

import socket

import pytest

from ddpm_service.gateway.addressed import HEALTH
from tests.ddpm_service.gateway.wire import raw

pytestmark = pytest.mark.anyio


async def status(house, host: str, *, path: str = "/", method: str = "GET", **headers: str) -> int:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host else []), *lines, "Content-Length: 2"]
    code, answered, body = await raw(house, "\r\n".join([*head, "", "{}"]).encode())
    assert "evil" not in str(answered) + str(body)
    return code


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "127.8.8.8", "[::1]:8000"])
async def test_loopback_names_are_its_own(house, host) -> None:
    assert await status(house, host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "localhost@evil.example",
        "192.0.2.1",
        "[::ffff:192.0.2.1]",
        "0.0.0.0",
        "2130706433",
        "localhost, evil.example",
        "localhost\r\nHost: evil.example",
    ],
)
async def test_another_name_or_none_is_refused(house, host) -> None:
    for path in ("/", "/v1/models", "/page/app.js", "/openapi.json", "/nowhere"):
        assert await status(house, host, path=path) == 421
    assert await status(house, host, path="/predictions/faces", method="POST") == 421


async def test_health_is_told_under_any_name(house) -> None:
    assert [await status(house, "evil.example", path=path) for path in sorted(HEALTH)] == [200] * 3


async def test_its_operator_gives_it_names(open_house) -> None:
    async with open_house(hosts="faces.example.com, *.svc") as house:
        names = ["faces.example.com", "ddpm.svc:8000", "example.com", "x.faces.example.com", "evilsvc"]
        assert [await status(house, name) for name in names] == [200, 200, 421, 421, 421]


async def test_off_loopback_addresses_and_the_machines_name_are_its_own(open_house) -> None:
    async with open_house(host="0.0.0.0") as house:
        names = ["192.0.2.1:8000", "[2001:db8::1]", socket.gethostname(), "evil.example"]
        assert [await status(house, name) for name in names] == [200, 200, 200, 421]


@pytest.mark.parametrize(
    "sent",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000", "Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Origin": "http://localhost.evil.example"},
    ],
)
async def test_pages_of_other_sites_make_nothing(house, sent) -> None:
    for path in ("/predictions/faces", "/v1/images/generations", "/generate"):
        assert await status(house, "localhost", path=path, method="POST", **sent) == 403
    assert not house.upstream.requests
    assert await status(house, "localhost", **sent) == 200


@pytest.mark.parametrize(
    "sent", [{}, {"Origin": "http://localhost:8000", "Sec_Fetch_Site": "same-origin"}, {"Sec_Fetch_Site": "none"}]
)
async def test_its_own_page_and_programs_may(house, sent) -> None:
    sent = {"Content_Type": "application/json", **sent}
    assert await status(house, "localhost:8000", path="/predictions/faces", method="POST", **sent) == 200


@pytest.mark.parametrize("origins", ["http://friend.example", "*"])
async def test_pages_that_its_operator_named_may(open_house, origins) -> None:
    async with open_house(cors_origins=origins) as house:
        sent = {"Content_Type": "application/json", "Sec_Fetch_Site": "cross-site"}
        post = {"path": "/predictions/faces", "method": "POST"}
        assert await status(house, "localhost", **post, Origin="http://friend.example", **sent) == 200
        other = await status(house, "localhost", **post, Origin="http://evil.example", **sent)
        assert other == (200 if origins == "*" else 403)
