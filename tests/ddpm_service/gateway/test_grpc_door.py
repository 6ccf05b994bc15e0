"""gRPC on the front door, asked by a client that is made of TorchServe's own definition of the service."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, empty_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image

from ddpm_api import parse_event
from ddpm_service.errors import ServiceError
from ddpm_service.gateway.grpc_door import GrpcDoor
from ddpm_service.torchserve.board import State

pytestmark = pytest.mark.anyio

# The definition that the tests of TorchServe itself use.
sys.path.insert(0, str(Path(__file__).parents[2] / "e2e"))
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


# -- What goes in and comes out


async def test_a_client_of_torchserve_gets_the_result_as_text(rpc):
    result = json.loads((await rpc.ask(data=SELFIE)).decode("utf-8"))

    assert [image["index"] for image in result["images"]] == [0, 1, 2, 3, 4]
    assert rpc.house.upstream.requests[0].image == SELFIE
    assert rpc.house.upstream.headers[0]["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize("name", ["data", "image", "body"])
async def test_the_picture_has_three_names_and_other_fields_are_text(rpc, name):
    await rpc.ask(**{name: SELFIE}, num_images=b"2", mode=b"faithful", align=b"1,2,30,40", return_target=b"true")

    request = rpc.house.upstream.requests[0]
    assert (request.image, request.num_images, request.mode) == (SELFIE, 2, "faithful")
    assert (str(request.align), request.return_target) == ("1,2,30,40", True)


async def test_a_version_can_be_named(rpc):
    await rpc.ask("faces", "1", seed=b"5")
    assert rpc.house.upstream.paths == ["/predictions/faces/1"]


@pytest.mark.parametrize(("accept", "kind"), [(b"image/png", "PNG"), (b"image/jpeg", "JPEG"), (b"image/*", "PNG")])
async def test_accept_asks_for_a_picture(rpc, accept, kind):
    whole = Image.open(io.BytesIO(await rpc.ask(num_images=b"2", accept=accept)))
    (streamed,) = await rpc.stream(num_images=b"1", accept=accept)

    assert (whole.size, whole.format) == ((16, 8), kind)  # two faces of 8 × 8
    assert (Image.open(io.BytesIO(streamed)).size, Image.open(io.BytesIO(streamed)).format) == ((8, 8), kind)
    assert {request.output_format.upper() for request in rpc.house.upstream.requests} == {kind}


@pytest.mark.parametrize("fields", [{}, {"accept": b"*/*"}, {"accept": b"application/x-ndjson"}])
async def test_a_stream_is_a_message_an_event(rpc, fields):
    parts = await rpc.stream(num_images=b"2", preview_every=b"2", **fields)

    steps = ["progress", "progress", "preview", "preview", "progress", "progress"]
    assert [parse_event(part).event for part in parts] == ["queued", "started", *steps, "image", "image", "end"]


async def test_a_stream_can_be_asked_for_the_result_alone(rpc):
    (part,) = await rpc.stream(num_images=b"2", accept=b"application/json")
    assert len(json.loads(part)["images"]) == 2


async def test_events_come_while_the_request_is_under_way(rpc):
    call = rpc.client.StreamPredictions(asked("silent", seed=b"5"))
    assert parse_event((await call.read()).prediction).event == "queued"

    rpc.house.upstream.release.set()
    assert [parse_event(part).event for part in await rest(call)][-1] == "end"


async def test_events_can_be_had_in_one_piece(rpc):
    lines = (await rpc.ask(num_images=b"1", accept=b"application/x-ndjson")).splitlines()
    assert [parse_event(line).event for line in (lines[0], lines[-1])] == ["queued", "end"]


async def test_previews_reach_nobody_else(rpc):
    async def previews(name: str) -> set[str]:
        request = asked(num_images=b"3", preview_every=b"1")
        call = rpc.client.StreamPredictions(request, metadata=(("x-request-id", name),))
        events = [parse_event(part.prediction) async for part in call]
        return {base64.b64decode(event.b64_json).decode() for event in events if event.event == "preview"}

    names = [f"request-{number}" for number in range(20)]
    assert await asyncio.gather(*map(previews, names)) == [{name} for name in names]


async def test_the_request_id_is_taken_or_made_and_goes_on(rpc):
    for sent, taken in (("mine-7", True), ("{not fit for a log}", False)):
        call = rpc.client.Predictions(asked(seed=b"5"), metadata=(("x-request-id", sent),))
        identity = dict(await call.initial_metadata())["x-request-id"]
        assert (identity == sent) is taken
        assert json.loads((await call).prediction)["id"] == identity


# -- Refusals and failures


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


# -- Tokens


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


# -- Leaving


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


# -- Health


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


# -- The end


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


# -- What is logged


async def test_a_call_has_its_log_line_and_nothing_of_a_picture_is_in_it(rpc, lines):
    metadata = (("x-request-id", "mine-7"),)
    await rpc.client.Predictions(asked(data=SELFIE, num_images=b"1"), metadata=metadata)
    with pytest.raises(grpc.aio.AioRpcError):
        await rpc.ask(data=SELFIE, seed=SELFIE)
    with pytest.raises(grpc.aio.AioRpcError):
        await rpc.channel.unary_unary(f"/{SERVICE}/StreamPredictions")(SELFIE)

    said = [record for record in lines.records if record.name == "ddpm" and record.getMessage() == "request"]
    assert [record.status for record in said] == ["OK", "INVALID_ARGUMENT", "INVALID_ARGUMENT"]
    assert [record.path.rpartition("/")[2] for record in said] == ["Predictions", "Predictions", "StreamPredictions"]
    assert said[0].request_id == "mine-7"
    everything = " ".join(str(vars(record)) for record in lines.records)
    assert "as far as the front door knows" not in everything
