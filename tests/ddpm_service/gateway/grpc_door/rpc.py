"""A gRPC client at a running front door, made of TorchServe's own definition of the service."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ddpm_service.gateway.grpc_door import GrpcDoor

# The definition that the tests of TorchServe itself use.
sys.path.insert(0, str(Path(__file__).parents[3] / "e2e"))
MESSAGES, SERVICES = grpc.protos_and_services("inference.proto")
sys.path.pop(0)

SERVICE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
SELFIE = b"\xff\xd8\xff\xe0 a selfie, as far as the front door knows"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass
class Rpc:
    """A client at a running door; `house` is the HTTP side of the same service."""

    house: Any
    door: GrpcDoor
    port: int
    channel: grpc.aio.Channel

    def __post_init__(self) -> None:
        self.client = SERVICES.InferenceAPIsServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    async def ask(self, model: str = "faces", version: str = "", **fields: bytes) -> bytes:
        return (await self.client.Predictions(asked(model, version, **fields))).prediction

    async def stream(self, model: str = "faces", **fields: bytes) -> list[bytes]:
        return [part.prediction async for part in self.client.StreamPredictions(asked(model, **fields))]

    async def free(self) -> None:
        """Wait until no request has a place any more."""
        if self.house.upstream.paths:
            await asyncio.wait_for(self.house.upstream.idle.wait(), 10)
        assert await self.house.door.gate.drain(10)


def asked(model: str = "faces", version: str = "", **fields: bytes) -> Any:
    return MESSAGES.PredictionsRequest(model_name=model, model_version=version, input=fields)


async def rest(call: Any) -> list[bytes]:
    """What a stream of which something was read says until its end."""
    parts = []
    while (part := await call.read()) is not grpc.aio.EOF:
        parts.append(part.prediction)
    return parts


def error_of(failed: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> dict[str, Any]:
    return json.loads(failed.value.details())["error"]


def trailing(failed: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> dict[str, Any]:
    return dict(failed.value.trailing_metadata())
