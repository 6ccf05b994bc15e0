"""A front door with its gRPC port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc
import pytest

from ddpm_service.gateway.grpc_door import GrpcDoor
from tests.ddpm_service.gateway.grpc_door.rpc import Rpc

Open = Callable[..., AbstractAsyncContextManager[Rpc]]


@pytest.fixture
def open_rpc(open_house) -> Open:
    """Run a front door with its gRPC port, with these settings."""

    @asynccontextmanager
    async def run(**settings: Any) -> AsyncIterator[Rpc]:
        async with open_house(**settings) as house:
            door = GrpcDoor(house.door)
            port = await door.start("127.0.0.1:0")
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield Rpc(house, door, port, channel)
            await door.stop()

    return run


@pytest.fixture
async def rpc(open_rpc: Open) -> AsyncIterator[Rpc]:
    async with open_rpc() as running:
        yield running
