"""What happens when a client leaves, stops reading or waits long; and when a version dies under its request."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from ddpm_api import parse_event
from ddpm_service.gateway import backend
from ddpm_service.gateway import gate as gates
from ddpm_service.torchserve import pulse
from ddpm_service.torchserve.board import State
from tests.ddpm_service.gateway.conftest import Upstream

pytestmark = pytest.mark.anyio

LINES = {"Accept": "application/x-ndjson"}


async def first_event(response):
    return parse_event(await response.content.readline())


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/event-stream", "application/json", "image/png"])
@pytest.mark.parametrize("model", ["endless", "silent"])
async def test_a_client_that_leaves_frees_its_place_at_once(house, model, accept):
    request = asyncio.create_task(house.client.post(f"/predictions/{model}", json={}, headers={"Accept": accept}))
    while not house.upstream.open:
        await asyncio.sleep(0.005)

    if accept in ("application/json", "image/png"):
        request.cancel()
    else:
        (await request).close()

    await asyncio.wait_for(house.upstream.idle.wait(), 5)
    assert await house.door.gate.drain(5)
    assert house.door.gate.limits.open(model, "1") == 0


async def test_a_stream_can_be_left_at_every_point(house):
    for count in range(9):
        async with house.client.post("/predictions/faces", json={"preview_every": 1}, headers=LINES) as response:
            for _ in range(count):
                await response.content.readline()
            response.close()
    await asyncio.wait_for(house.upstream.idle.wait(), 5)
    assert await house.door.gate.drain(5)


async def test_a_silent_stream_has_heartbeats_and_then_goes_on(open_house):
    async with open_house(heartbeat_seconds=0.05) as house:
        async with house.client.post("/predictions/silent", json={}, headers=LINES) as response:
            assert (await first_event(response)).event == "queued"
            assert [await response.content.readline() for _ in range(3)] == [b"\n"] * 3
            house.upstream.release.set()
            rest = [parse_event(line) async for line in response.content if line.strip()]
            assert rest[-1].event == "end"
        house.upstream.release.clear()
        headers = {"Accept": "text/event-stream"}
        async with house.client.post("/predictions/silent", json={}, headers=headers) as response:
            text = b""
            while text.count(b": heartbeat\n\n") < 2:
                text += await response.content.readany()


async def test_a_client_that_reads_nothing_is_left_and_little_is_kept_for_it(open_house):
    async with open_house(stalled_seconds=0.3) as house:
        with socket.create_connection(("127.0.0.1", house.port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(
                b"POST /predictions/flood HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n"
                b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
            )
            while not house.upstream.open:
                await asyncio.sleep(0.005)
            await asyncio.wait_for(house.upstream.idle.wait(), 10)
            assert await house.door.gate.drain(5)
            # Cut, not closed: a close would wait for the client to read.
            with pytest.raises(ConnectionResetError):
                await asyncio.to_thread(read_all, client)


def read_all(client: socket.socket) -> None:
    while client.recv(2**20):
        pass


@pytest.mark.parametrize("state", [State.LOADING, State.FAILED, None])
async def test_a_version_that_dies_ends_its_requests_by_an_error(house, state):
    async with (
        house.client.post("/predictions/endless", json={}, headers=LINES) as response,
        house.client.post("/predictions/silent", json={}, headers=LINES) as other,
    ):
        await first_event(response)
        await first_event(other)
        if state is None:
            house.board.remove("endless", "1")
        else:
            house.board.move("endless", "1", state, "its worker has died")
        events = [parse_event(line) async for line in response.content if line.strip()]
        assert (events[-1].event, events[-1].error.code) == ("error", "unavailable")
        house.upstream.release.set()
        rest = [parse_event(line) async for line in other.content if line.strip()]
        assert rest[-1].event == "end"


@pytest.fixture
def impatient(monkeypatch):
    """A front door that takes short silences for long ones."""
    monkeypatch.setattr(backend, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(pulse, "_SILENT_SECONDS", 0.3)
    monkeypatch.setattr(pulse, "_UNKNOWN_CALL", 0.0)


@pytest.mark.usefixtures("impatient")
async def test_a_request_that_is_lost_while_others_are_answered_is_told_to_come_again(house):
    async with house.client.post("/predictions/loses", json={}, headers=LINES) as other:
        await first_event(other)
        async with house.client.post("/predictions/loses", json={"seed": Upstream.LOST}) as lost:
            assert (lost.status, (await lost.json())["error"]["code"]) == (503, "unavailable")
            assert "Retry-After" in lost.headers
        async with house.client.post("/predictions/loses", json={"seed": Upstream.LOST_LATER}, headers=LINES) as lost:
            events = [parse_event(line) async for line in lost.content if line.strip()]
            assert [event.event for event in events] == ["queued", "error"]
            assert events[-1].error.code == "unavailable"
        house.upstream.release.set()
        rest = [parse_event(line) async for line in other.content if line.strip()]
        assert rest[-1].event == "end"


@pytest.mark.usefixtures("impatient")
async def test_a_request_that_hears_as_little_as_all_others_is_not_lost(house):
    asked = [house.client.post("/predictions/loses", json={"seed": Upstream.LOST}, headers=LINES) for _ in range(2)]
    waiting = asyncio.gather(*asked)
    await asyncio.sleep(1)
    assert not waiting.done()
    house.upstream.release.set()
    for response in await waiting:
        events = [parse_event(line) async for line in response.content if line.strip()]
        assert events[-1].event == "end"


@pytest.mark.usefixtures("impatient")
async def test_while_a_version_is_loaded_no_request_is_lost(house):
    house.board.move("endless", "1", State.LOADING)
    async with house.client.post("/predictions/loses", json={}, headers=LINES) as other:
        await first_event(other)
        body = {"seed": Upstream.LOST}
        lost = asyncio.create_task(house.client.post("/predictions/loses", json=body))
        await asyncio.sleep(1)
        assert not lost.done()
        house.board.move("endless", "1", State.READY)
        async with await lost as answer:
            assert answer.status == 503
        house.upstream.release.set()


@pytest.mark.usefixtures("impatient")
async def test_a_request_that_waits_behind_others_is_not_lost(house):
    async with (
        house.client.post("/predictions/loses", json={}, headers=LINES) as other,
        house.client.post("/predictions/loses", json={"seed": Upstream.QUEUED}, headers=LINES) as waiting,
    ):
        await first_event(waiting)
        for _ in range(100):
            await first_event(other)
        house.upstream.release.set()
        rest = [parse_event(line) async for line in waiting.content if line.strip()]
        assert rest[-1].event == "end"


async def test_a_whole_answer_of_a_version_that_dies_is_503(house):
    request = asyncio.create_task(house.client.post("/predictions/endless", json={}))
    while not house.upstream.open:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    house.board.move("endless", "1", State.LOADING)
    async with await request as response:
        assert response.status == 503
        assert "Retry-After" in response.headers


async def test_a_version_that_leaves_finishes_what_it_has_and_takes_no_more(house):
    async with house.client.post("/predictions/silent", json={}, headers=LINES) as response:
        await first_event(response)
        house.board.move("silent", "1", State.LEAVING)
        async with house.client.post("/predictions/silent", json={}) as refused:
            assert refused.status == 503
        house.upstream.release.set()
        events = [parse_event(line) async for line in response.content if line.strip()]
        assert events[-1].event == "end"


async def test_while_it_drains_running_requests_finish_and_new_ones_are_refused(house):
    async with house.client.post("/predictions/silent", json={}, headers=LINES) as response:
        await first_event(response)
        draining = asyncio.create_task(house.door.gate.drain(30))
        await asyncio.sleep(0)
        async with house.client.post("/predictions/faces", json={}) as refused:
            assert (refused.status, (await refused.json())["error"]["code"]) == (503, "draining")
            assert refused.headers["Retry-After"] == str(gates._DRAIN_RETRY_SECONDS)
        for path, status in (("/readyz", 503), ("/healthz", 200), ("/ping", 503)):
            async with house.client.get(path) as answer:
                assert answer.status == status
        assert not draining.done()
        house.upstream.release.set()
        events = [parse_event(line) async for line in response.content if line.strip()]
    assert events[-1].event == "end"
    assert await draining


async def test_a_drain_has_an_end(house):
    async with house.client.post("/predictions/endless", json={}, headers=LINES) as response:
        await first_event(response)
        began = time.monotonic()
        assert not await house.door.gate.drain(0.05)
        assert time.monotonic() - began >= 0.05
