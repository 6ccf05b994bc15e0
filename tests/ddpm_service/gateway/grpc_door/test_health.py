"""Ping, the standard health service and reflection."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, empty_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ddpm_service.torchserve.board import State
from tests.ddpm_service.gateway.grpc_door.rpc import MESSAGES, NOT_SERVING, SERVICE, SERVING

pytestmark = pytest.mark.anyio


async def test_ping_says_what_torchserve_says_but_true(rpc):
    async def said() -> dict[str, str]:
        return json.loads((await rpc.client.Ping(empty_pb2.Empty())).health)

    assert await said() == {"status": "Healthy"}
    rpc.house.board.move("faces", "1", State.LOADING)
    assert await said() == {"status": "Unhealthy"}


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_health_follows_readiness(rpc, service):
    watching = rpc.health.Watch(health_pb2.HealthCheckRequest(service=service))
    assert (await watching.read()).status == SERVING

    rpc.house.board.move("faces", "1", State.LOADING)
    assert (await watching.read()).status == NOT_SERVING
    rpc.house.board.move("faces", "1", State.READY)
    assert (await watching.read()).status == SERVING
    assert (await rpc.health.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING


async def test_health_of_another_service_is_unknown(rpc):
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await rpc.health.Check(health_pb2.HealthCheckRequest(service="other"))
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_tells_what_torchserves_definition_says(rpc):
    async def answers(**asked: str) -> Any:
        request = reflection_pb2.ServerReflectionRequest(**asked)
        stub = reflection_pb2_grpc.ServerReflectionStub(rpc.channel)
        (answer,) = [answer async for answer in stub.ServerReflectionInfo(iter([request]))]
        return answer

    listed = {each.name for each in (await answers(list_services="")).list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= listed
    for name in sorted(listed):
        assert (await answers(file_containing_symbol=name)).WhichOneof("message_response") == "file_descriptor_response"

    told = (await answers(file_containing_symbol=SERVICE)).file_descriptor_response.file_descriptor_proto
    files = [descriptor_pb2.FileDescriptorProto.FromString(file) for file in told]
    ours = next(file for file in files if file.package == SERVICE.rpartition(".")[0])
    theirs = descriptor_pb2.FileDescriptorProto.FromString(MESSAGES.DESCRIPTOR.serialized_pb)
    assert shape(ours) == shape(theirs)


def shape(file: Any) -> Any:
    """What two sides of a connection must agree on."""
    messages = [each for message in file.message_type for each in (message, *message.nested_type)]
    fields = {
        (message.name, each.name, each.number, each.type, each.label, each.type_name)
        for message in messages
        for each in message.field
    }
    (service,) = file.service
    return fields, {(each.name, each.input_type, each.output_type, each.server_streaming) for each in service.method}
