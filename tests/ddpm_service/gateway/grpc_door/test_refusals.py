"""What a gRPC call is refused, and how it fails."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest
from google.protobuf import empty_pb2

from ddpm_api import parse_event
from tests.ddpm_service.gateway.grpc_door.rpc import SELFIE, SERVICE, asked, error_of, trailing

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("model", "fields", "status", "code"),
    [
        ("faces", {"num_images": b"99"}, "INVALID_ARGUMENT", "out_of_range"),
        ("faces", {"nmu_images": b"1"}, "INVALID_ARGUMENT", "unknown_field"),
        ("faces", {"seed": b"\xff\xfe"}, "INVALID_ARGUMENT", "wrong_type"),
        ("faces", {"data": b""}, "INVALID_ARGUMENT", "empty_image"),
        ("faces", {"data": SELFIE, "image": SELFIE}, "INVALID_ARGUMENT", "conflict"),
        ("faces", {}, "INVALID_ARGUMENT", "empty_form"),
        ("faces", {"seed": b"5", "accept": b"text/html"}, "INVALID_ARGUMENT", "not_acceptable"),
        ("faces", {"seed": b"5", "accept": b"\xff\x00"}, "INVALID_ARGUMENT", "not_acceptable"),
        ("nobody", {"seed": b"5"}, "NOT_FOUND", "not_found"),
        ("", {"seed": b"5"}, "NOT_FOUND", "not_found"),
        ("busy", {"seed": b"5"}, "RESOURCE_EXHAUSTED", "busy"),
        ("gone", {"seed": b"5"}, "UNAVAILABLE", "unavailable"),
        ("large", {"seed": b"5"}, "INVALID_ARGUMENT", "too_large"),
        ("broken", {"seed": b"5"}, "INTERNAL", "internal"),
        ("late", {"seed": b"5"}, "INTERNAL", "out_of_memory"),
        ("cut", {"seed": b"5"}, "UNAVAILABLE", "unavailable"),
        ("garbled", {"seed": b"5"}, "UNAVAILABLE", "unavailable"),
    ],
)
async def test_an_error_is_a_status_with_the_error_as_its_details(rpc, model, fields, status, code):
    with pytest.raises(grpc.aio.AioRpcError) as unary:
        await rpc.ask(model, **fields)
    with pytest.raises(grpc.aio.AioRpcError) as streamed:
        await rpc.stream(model, **fields)

    assert [failed.value.code().name for failed in (unary, streamed)] == [status, status]
    assert [error_of(failed)["code"] for failed in (unary, streamed)] == [code, code]


async def test_a_version_that_failed_says_why(rpc):
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await rpc.ask("faces", "2", seed=b"5")
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "broken weights" in error_of(failed)["message"]


async def test_an_error_names_the_field_and_what_is_allowed(rpc):
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await rpc.ask(num_images=b"99")
    error = error_of(failed)
    assert (error["field"], error["given"], error["allowed"]) == ("num_images", 99, "1..16")


async def test_a_busy_service_says_when_to_ask_again(rpc):
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await rpc.ask("busy", seed=b"5")
    assert trailing(failed)["retry-after"] == "7"


async def test_a_late_failure_ends_the_stream_by_its_status(rpc):
    call = rpc.client.StreamPredictions(asked("late", seed=b"5"))
    assert parse_event((await call.read()).prediction).event == "queued"
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call.read()
    assert (failed.value.code().name, error_of(failed)["code"]) == ("INTERNAL", "out_of_memory")


async def test_bytes_that_are_no_message_are_refused(rpc):
    for message in (b"\xff\xff\xff", b"\x0a\x02\xff\xfe", SELFIE):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await rpc.channel.unary_unary(f"/{SERVICE}/Predictions")(message)
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error_of(failed)["code"] == "malformed_request"


async def test_a_message_that_is_too_long_is_refused_and_its_place_is_free(open_rpc):
    async with open_rpc(max_bytes=100_000) as rpc:
        await rpc.ask(data=bytes(99_000))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await rpc.ask(data=bytes(100_000))
        assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(rpc.house.upstream.paths) == 1
        await rpc.free()


async def test_a_large_answer_arrives(rpc):
    options = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rpc.port}", options=options) as channel:
        call = channel.unary_stream(f"/{SERVICE}/StreamPredictions")(asked("flood", seed=b"5").SerializeToString())
        assert [len(await call.read()) > size for size in (0, 100_000)] == [True, True]


async def test_a_message_that_never_comes_is_given_up(open_rpc):
    async with open_rpc(upload_seconds=0.2) as rpc:
        for call in [rpc.channel.stream_unary(f"/{SERVICE}/Predictions")() for _ in range(6)]:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await call
            assert (failed.value.code().name, error_of(failed)["code"]) == ("DEADLINE_EXCEEDED", "upload_timeout")
        await rpc.free()


async def test_many_calls_at_one_time_are_all_read(rpc):
    results = await asyncio.gather(*(rpc.ask(data=SELFIE, num_images=b"1") for _ in range(60)))
    assert len(results) == 60


async def test_of_too_many_calls_each_is_answered_or_told_when_to_ask_again(open_rpc):
    async with open_rpc(max_open=50) as rpc:
        calls = [rpc.client.Predictions(asked("silent", data=SELFIE)) for _ in range(120)]
        while sum(call.done() for call in calls) < 70:
            await asyncio.sleep(0.01)
        rpc.house.upstream.release.set()
        codes = [await call.code() for call in calls]

        assert codes.count(grpc.StatusCode.OK) == 50
        refused = [call for call, code in zip(calls, codes, strict=True) if code is grpc.StatusCode.RESOURCE_EXHAUSTED]
        assert len(refused) == 70
        for call in refused:
            assert json.loads(await call.details())["error"]["code"] == "busy"
            assert int(dict(await call.trailing_metadata())["retry-after"]) > 0


async def test_a_token_is_needed_where_there_are_tokens(open_rpc):
    async with open_rpc(tokens="alice 0123456789abcdef") as rpc:
        for metadata in (
            (),
            (("authorization", "Bearer wrong-wrong-wrong"),),
            (("authorization", "0123456789abcdef"),),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await rpc.client.Predictions(asked(seed=b"5"), metadata=metadata)
            assert (failed.value.code().name, error_of(failed)["code"]) == ("UNAUTHENTICATED", "unauthorized")

        metadata = (("authorization", "Bearer 0123456789abcdef"),)
        assert (await rpc.client.Predictions(asked(seed=b"5"), metadata=metadata)).prediction
        assert (await rpc.client.Ping(empty_pb2.Empty())).health  # probes have no token


async def test_who_is_unknown_is_answered_before_the_message_is_read(open_rpc):
    async with open_rpc(tokens="alice 0123456789abcdef") as rpc:
        call = rpc.channel.stream_unary(f"/{SERVICE}/Predictions")()
        with pytest.raises(grpc.aio.AioRpcError) as failed:  # nothing was ever written
            await call
        assert failed.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_token_has_a_rate(open_rpc):
    async with open_rpc(tokens="alice 0123456789abcdef", rate_per_minute=1) as rpc:
        metadata = (("authorization", "bearer 0123456789abcdef"),)
        await rpc.client.Predictions(asked(seed=b"5"), metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await rpc.client.Predictions(asked(seed=b"5"), metadata=metadata)
        assert (failed.value.code().name, error_of(failed)["code"]) == ("RESOURCE_EXHAUSTED", "rate_limited")
        assert 0 < int(trailing(failed)["retry-after"]) <= 60
