"""With one caller holding all that it can get, another's request is answered as ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress

import pytest

from ddpm_api import ApiError
from ddpm_service.gateway import reading
from ddpm_service.gateway.auth import NOBODY, Caller, anonymous
from ddpm_service.gateway.grpc_bounds import host_of
from ddpm_service.gateway.limits import Limits, Places, Turns
from ddpm_service.gateway.settings import Settings
from tests.ddpm_service.gateway.wire import answered, hang_up

pytestmark = pytest.mark.anyio

ALICE, BOB, CAROL = (Caller(name) for name in ("alice", "bob", "carol"))
TOKENS = "alice AAAAbbbbCCCCdddd1234\nbob BBBBccccDDDDeeee5678\n"
OF_ALICE, OF_BOB = ({"Authorization": f"Bearer {line.split()[1]}"} for line in TOKENS.splitlines())


def taken(held: ExitStack, enter) -> int:
    """How many a caller gets."""
    count = 0
    with suppress(ApiError):
        while True:
            held.enter_context(enter())
            count += 1
    return count


def test_of_places_everybody_gets_as_many_as_are_left_for_others():
    limits = Limits(Settings(max_open=8))
    with ExitStack() as held:
        assert taken(held, lambda: limits.place("faces", "1", ALICE)) == 4
        assert taken(held, lambda: limits.place("faces", "1", BOB)) == 2
        with limits.place("faces", "2", ALICE), limits.place("faces", "1", CAROL):
            pass


def test_of_calls_everybody_gets_as_many_as_are_left_for_others():
    calls = Places(8)
    with ExitStack() as held:
        assert taken(held, lambda: calls.place(ALICE)) == 4
        assert taken(held, lambda: calls.place(BOB)) == 2
        with calls.place(CAROL):
            pass
    with ExitStack() as held:  # what this machine's own users may hold is all of them
        assert taken(held, lambda: calls.place(NOBODY)) == 8


def test_of_memory_everybody_gets_as_much_as_is_left_for_others():
    limits = Limits(Settings(max_bytes=1024, max_upload_bytes=8192))

    @contextmanager
    def upload(caller: Caller) -> Iterator[None]:
        with limits.upload(1024, caller) as own:
            own.hold(1024)
            yield

    with ExitStack() as held:
        assert taken(held, lambda: upload(ALICE)) == 4
        assert taken(held, lambda: upload(BOB)) == 2
        with upload(CAROL):
            pass


async def test_of_turns_everybody_gets_as_many_as_are_left_for_others():
    turns = Turns(4)
    async with AsyncExitStack() as held:
        for caller in (ALICE, ALICE, BOB):
            await held.enter_async_context(turns.turn(caller))
        for caller in (ALICE, BOB):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(turns.turn(caller).__aenter__(), 0.05)
        async with turns.turn(CAROL):
            pass
    async with turns.turn(ALICE):
        pass


@pytest.mark.parametrize(
    ("host", "shared"),
    [
        ("127.0.0.1", None),
        ("::1", None),
        ("", None),
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:127.0.0.1", None),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:2", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_without_tokens_an_address_is_a_caller_but_this_machine_is_its_users_own(host, shared):
    assert anonymous(host).shared == shared
    assert not anonymous(host).known


@pytest.mark.parametrize(
    ("peer", "host"), [("ipv4:192.0.2.7:40", "192.0.2.7"), ("ipv6:%5B2001:db8::1%5D:40", "2001:db8::1"), ("unix:", "")]
)
def test_grpc_tells_addresses_in_its_own_way(peer, host):
    assert host_of(peer) == host


def test_without_tokens_addresses_share_too():
    limits = Limits(Settings(max_open=8))
    here, there = anonymous("127.0.0.1"), anonymous("192.0.2.7")
    with ExitStack() as held:
        assert taken(held, lambda: limits.place("faces", "1", there)) == 4
        assert taken(held, lambda: limits.place("faces", "1", here)) == 4


async def test_a_turn_that_lasts_is_taken_back_when_somebody_waits_and_all_are_taken():
    turns, alone = Turns(1, patience=0.1), asyncio.Event()

    async def silent() -> None:
        async with turns.turn(ALICE):
            alone.set()
            await asyncio.sleep(60)

    asking = asyncio.create_task(silent())
    await alone.wait()
    await asyncio.sleep(0.3)
    assert not asking.done()  # nobody waits
    async with asyncio.timeout(30), turns.turn(BOB):
        pass
    with pytest.raises(TimeoutError):
        await asking


async def test_stalled_uploads_of_one_token_leave_room_for_another(open_house):
    size = 10_000
    async with open_house(tokens=TOKENS, max_bytes=size, max_upload_bytes=8 * size) as house:
        writers = []
        for _ in range(8):
            _, writer = await asyncio.open_connection("127.0.0.1", house.port)
            head = f"Authorization: {OF_ALICE['Authorization']}\r\nContent-Length: {size}"
            writer.write(f"POST /predictions/faces HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode())
            writer.write(bytes(size - 1))
            await writer.drain()
            writers.append(writer)
        async with house.client.post("/predictions/faces", data=bytes(size), headers=OF_BOB) as response:
            assert response.status == 200
        for writer in writers:
            await hang_up(writer)


async def test_an_upload_that_stops_is_not_waited_for(open_house, monkeypatch):
    monkeypatch.setattr(reading, "_STALL_SECONDS", 0.2)
    async with open_house() as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(b"POST /predictions/faces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        writer.write(bytes(999_999))
        status, _, body = await answered(reader)
        assert (status, json.loads(body)["error"]["code"]) == (408, "upload_timeout")
        await hang_up(writer)


async def test_an_upload_slower_than_a_modem_is_not_waited_for(open_house, monkeypatch):
    monkeypatch.setattr(reading, "_STALL_SECONDS", 0.3)
    async with open_house(min_upload_rate=1_000_000) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(b"POST /predictions/faces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        answering = asyncio.create_task(answered(reader))
        while not answering.done():
            writer.write(b"x")
            await asyncio.sleep(0.02)
        assert answering.result()[0] == 408
        await hang_up(writer)
