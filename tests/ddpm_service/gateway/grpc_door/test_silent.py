"""Calls that send nothing leave others room to be read."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from tests.ddpm_service.gateway.grpc_door.rpc import SERVICE, asked

pytestmark = pytest.mark.anyio
TOKENS = "alice AAAAbbbbCCCCdddd1234\nbob BBBBccccDDDDeeee5678\n"
ALICE, BOB = ((("authorization", f"Bearer {line.split()[1]}"),) for line in TOKENS.splitlines())


async def test_silent_calls_of_one_token_leave_a_reader_for_another(open_rpc):
    async with open_rpc(tokens=TOKENS) as rpc:
        silent = [rpc.channel.stream_unary(f"/{SERVICE}/Predictions")(metadata=ALICE) for _ in range(8)]
        while sum(rpc.house.door.gate.limits._by_caller.values()) < len(silent):
            await asyncio.sleep(0.01)
        call = rpc.client.Predictions(asked(num_images=b"1"), metadata=BOB)
        assert await call.code() is grpc.StatusCode.OK
        for each in silent:
            each.cancel()
