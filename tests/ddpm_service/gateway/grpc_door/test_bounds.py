"""Every method of every service: what it reads, for how long, and who may call it."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ddpm_service.gateway import grpc_bounds
from ddpm_service.gateway.grpc_bounds import LONGEST
from ddpm_service.gateway.grpc_door import LARGE, OPEN
from tests.ddpm_service.gateway.grpc_door.rpc import Rpc

pytestmark = pytest.mark.anyio

TOKEN = "a-token-of-24-characters"
SENT = (("authorization", f"Bearer {TOKEN}"),)


async def methods(rpc: Rpc) -> set[str]:
    """All methods of all services, as reflection tells them."""

    async def answer(**asked: str) -> Any:
        stub = reflection_pb2_grpc.ServerReflectionStub(rpc.channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**asked)]), metadata=SENT)
        return await call.read()

    found = set()
    for service in (await answer(list_services="")).list_services_response.service:
        told = (await answer(file_containing_symbol=service.name)).file_descriptor_response.file_descriptor_proto
        files = [descriptor_pb2.FileDescriptorProto.FromString(each) for each in told]
        found |= {
            f"/{service.name}/{method.name}"
            for file in files
            for each in file.service
            if f"{file.package}.{each.name}" == service.name
            for method in each.method
        }
    return found


async def outcome(rpc: Rpc, method: str, message: bytes, **more: Any) -> grpc.StatusCode:
    call = rpc.channel.stream_stream(method)(iter([message]), timeout=20, **more)
    try:
        await call.read()  # what is watched has no end
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_what_is_large_or_open_exists(rpc: Rpc) -> None:
    assert await methods(rpc) > LARGE | OPEN


async def test_without_a_token_only_health_is_told(open_rpc: Any) -> None:
    async with open_rpc(tokens=TOKEN) as rpc:
        for method in await methods(rpc):
            refused = await outcome(rpc, method, b"") is grpc.StatusCode.UNAUTHENTICATED
            assert refused == (method not in OPEN), method


async def test_whatever_takes_no_selfie_takes_a_small_message_alone(open_rpc: Any) -> None:
    async with open_rpc(tokens=TOKEN) as rpc:
        for method in await methods(rpc) - LARGE:
            found = await outcome(rpc, method, bytes(LONGEST + 1), metadata=SENT)
            assert found is grpc.StatusCode.RESOURCE_EXHAUSTED, method
            assert await outcome(rpc, method, b"\xff", metadata=SENT) is grpc.StatusCode.INVALID_ARGUMENT, method


async def test_a_message_that_does_not_come_ends_the_call(open_rpc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_bounds, "_READ_SECONDS", 0.1)
    async with open_rpc(tokens=TOKEN, upload_seconds=0.1) as rpc:
        for method in await methods(rpc):
            call = rpc.channel.stream_stream(method)(metadata=SENT, timeout=20)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await call.read()
            assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED, method
            assert "in time" in str(failed.value.details()), method


async def test_who_sends_nothing_keeps_no_other_from_health(rpc: Rpc) -> None:
    method = "/grpc.health.v1.Health/Check"
    silent = [rpc.channel.stream_stream(method)() for _ in range(50)]
    await asyncio.sleep(0.05)
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rpc.port}", options) as channel:
        assert await channel.unary_unary(method)(b"", timeout=10) == b"\x08\x01"
    for call in silent:
        call.cancel()


async def test_calls_of_a_connection_are_bounded(rpc: Rpc) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", rpc.port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    head = await reader.readexactly(9)
    assert head[3] == 4
    settings = await reader.readexactly(int.from_bytes(head[:3], "big"))
    told = {settings[i + 1]: int.from_bytes(settings[i + 2 : i + 6], "big") for i in range(0, len(settings), 6)}
    writer.close()
    assert told[3] <= 200  # calls at one time
    assert told.get(4, 65_535) <= 65_535  # bytes of each that are sent ahead


async def test_calls_of_all_connections_together_are_bounded(open_rpc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_bounds, "_CALLS", 6)
    async with open_rpc(tokens=TOKEN) as rpc, AsyncExitStack() as open_channels:
        address, options = f"127.0.0.1:{rpc.port}", [("grpc.use_local_subchannel_pool", 1)]
        every, watching = sorted(await methods(rpc)), []
        for _ in range(3):  # connections of two calls each
            channel = await open_channels.enter_async_context(grpc.aio.insecure_channel(address, options))
            for _ in range(2):
                call = channel.stream_stream("/grpc.health.v1.Health/Watch")(iter([b""]))
                assert await call.read() == b"\x08\x01"
                watching.append(call)
        for method in every:
            refused = rpc.channel.stream_stream(method)(iter([b""]), metadata=SENT, timeout=20)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await refused.read()
            assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, method
            assert json.loads(str(failed.value.details()))["error"]["code"] == "busy", method
            assert int(dict(failed.value.trailing_metadata())["retry-after"]) > 0, method
        watching.pop().cancel()
        while await outcome(rpc, "/grpc.health.v1.Health/Check", b"") is not grpc.StatusCode.OK:
            await asyncio.sleep(0.01)
