"""What goes into a gRPC call, what comes out, and what is logged of it."""

from __future__ import annotations

import asyncio
import base64
import io
import json

import grpc
import pytest
from PIL import Image

from ddpm_api import parse_event
from tests.ddpm_service.gateway.grpc_door.rpc import SELFIE, SERVICE, asked, rest

pytestmark = pytest.mark.anyio


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
