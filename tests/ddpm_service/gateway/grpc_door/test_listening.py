"""The gRPC port from its start to its end."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2

from ddpm_service.errors import ServiceError
from ddpm_service.gateway.grpc_door import GrpcDoor
from tests.ddpm_service.gateway.grpc_door.rpc import NOT_SERVING, SERVICES, SERVING, asked, error_of, trailing

pytestmark = pytest.mark.anyio


async def test_while_it_drains_running_calls_end_well_and_new_ones_are_refused(rpc):
    watching = rpc.health.Watch(health_pb2.HealthCheckRequest())
    assert (await watching.read()).status == SERVING
    running = rpc.client.Predictions(asked("silent", seed=b"5"))
    while not rpc.house.upstream.open:
        await asyncio.sleep(0.01)
    draining = asyncio.create_task(rpc.house.door.gate.drain(10))

    assert (await watching.read()).status == NOT_SERVING
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await rpc.ask(seed=b"5")
    assert (failed.value.code().name, error_of(failed)["code"]) == ("UNAVAILABLE", "draining")
    assert int(trailing(failed)["retry-after"]) > 0

    rpc.house.upstream.release.set()
    assert (await running).prediction
    assert await draining


async def test_stop_cuts_what_still_runs_and_frees_the_port(rpc):
    running = rpc.client.Predictions(asked("silent", seed=b"5"))
    watching = rpc.health.Watch(health_pb2.HealthCheckRequest())
    await watching.read()
    while not rpc.house.upstream.open:
        await asyncio.sleep(0.01)
    await rpc.door.stop(0.1)  # a watcher would stay for ever

    assert await running.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    await rpc.free()
    other = GrpcDoor(rpc.house.door)
    assert await other.start(f"127.0.0.1:{rpc.port}") == rpc.port
    await other.stop()


async def test_a_port_that_is_taken_is_said_so(rpc):
    with pytest.raises(ServiceError, match=f"cannot listen on 127.0.0.1:{rpc.port}"):
        await GrpcDoor(rpc.house.door).start(f"127.0.0.1:{rpc.port}")


async def test_it_can_listen_on_a_socket_file(house, tmp_path):
    door = GrpcDoor(house.door)
    await door.start(f"unix:{tmp_path}/grpc.sock")
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/grpc.sock") as channel:
        stub = SERVICES.InferenceAPIsServiceStub(channel)
        assert (await stub.Predictions(asked(seed=b"5"))).prediction
    await door.stop()
