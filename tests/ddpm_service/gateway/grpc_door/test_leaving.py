"""A gRPC client that leaves, or reads nothing."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from tests.ddpm_service.gateway.grpc_door.rpc import SERVICES, asked, error_of, rest

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("model", ["silent", "endless"])
async def test_a_cancelled_call_frees_its_place(rpc, model, whole):
    method = rpc.client.Predictions if whole else rpc.client.StreamPredictions
    call = method(asked(model, seed=b"5"))
    if not whole:
        await call.read()
    while not rpc.house.upstream.open:
        await asyncio.sleep(0.01)
    call.cancel()
    await rpc.free()


async def test_a_deadline_holds_and_frees_the_place(rpc):
    for method in (rpc.client.Predictions, rpc.client.StreamPredictions):
        call = method(asked("silent", seed=b"5"), timeout=0.3)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(rpc.house.upstream.idle.wait(), 10)
    await rpc.free()


async def test_a_client_that_vanishes_frees_its_place(rpc):
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{rpc.port}", options=[("grpc.use_local_subchannel_pool", 1)])
    call = SERVICES.InferenceAPIsServiceStub(channel).StreamPredictions(asked("endless", seed=b"5"))
    await call.read()
    await channel.close()
    await rpc.free()


async def test_a_client_that_reads_nothing_is_left(open_rpc, lines):
    async with open_rpc(stalled_seconds=0.3) as rpc:
        call = rpc.client.StreamPredictions(asked("flood", seed=b"5"))
        await call.read()
        await rpc.free()
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await rest(call)
        assert error_of(failed)["code"] == "timeout"
    assert "ERROR" not in {record.levelname for record in lines.records if record.name.startswith(("ddpm", "grpc"))}
