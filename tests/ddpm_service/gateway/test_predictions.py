"""The contract's routes: what goes in, what comes out, by what status."""

from __future__ import annotations

import asyncio
import base64
import io
import json

import aiohttp
import pytest
from PIL import Image

from ddpm_api import parse_event

pytestmark = pytest.mark.anyio

URLENCODED = {"Content-Type": "application/x-www-form-urlencoded"}
SELFIE = b"\xff\xd8\xff\xe0 a selfie, as far as the front door knows"


def form(**fields) -> aiohttp.FormData:
    data = aiohttp.FormData(fields)
    data.add_field("image", SELFIE, filename="me.jpg", content_type="image/jpeg")
    return data


async def events_of(response) -> list:
    return [parse_event(line) async for line in response.content if line.strip()]


async def error_of(response) -> dict:
    document = await response.json()
    assert document.keys() == {"error"}
    return document["error"]


@pytest.mark.parametrize(
    ("accept", "prefer"),
    [("application/json", "return=minimal"), ("image/png", "return=minimal"), ("text/event-stream", None)],
)
async def test_steps_are_asked_for_only_where_the_client_is_told_of_them(house, accept, prefer):
    async with house.client.post("/predictions/faces", json={}, headers={"Accept": accept}) as response:
        await response.read()
    assert house.upstream.headers[0].get("Prefer") == prefer


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("path", ["/predictions/faces", "/predictions/faces/1"])
async def test_json_is_answered_by_the_result(house, method, path):
    async with house.client.request(method, path, json={"num_images": 2, "seed": 5}) as response:
        result = await response.json()
    assert response.status == 200
    assert [image["index"] for image in result["images"]] == [0, 1]
    assert result["parameters"]["num_images"] == 2
    assert house.upstream.paths == ["/predictions/faces/1"]  # never the default: that may change on the way


async def test_the_picture_itself_is_answered_by_a_picture_and_goes_on_as_it_came(house):
    async with house.client.post("/predictions/faces", data=SELFIE, headers={"Content-Type": "image/jpeg"}) as response:
        picture = Image.open(io.BytesIO(await response.read()))
    assert (response.status, response.content_type) == (200, "image/png")
    assert picture.size == (24, 16)  # five faces of 8 × 8
    assert house.upstream.requests[0].image == SELFIE
    assert house.upstream.headers[0]["Content-Type"] == "application/octet-stream"


async def test_a_picture_is_known_by_its_bytes_whatever_it_is_called(house):
    for media in ("text/plain", "application/pdf", "image/svg+xml"):
        async with house.client.post("/predictions/faces", data=SELFIE, headers={"Content-Type": media}) as response:
            assert response.status == 200
    assert {asked.image for asked in house.upstream.requests} == {SELFIE}


async def test_a_form_without_files_goes_on_as_json(house):
    async with house.client.post("/predictions/faces", data={"seed": "7", "num_images": "1"}) as response:
        assert (response.status, response.content_type) == (200, "image/png")
    assert house.upstream.requests[0].seed == 7
    assert house.upstream.headers[0]["Content-Type"] == "application/json"


async def test_a_raw_body_takes_query_parameters(house):
    query = {"num_images": "1", "mode": "faithful", "return_target": "true"}
    async with house.client.post("/predictions/faces", params=query, data=SELFIE) as response:
        assert response.status == 200
    asked = house.upstream.requests[0]
    assert (asked.num_images, asked.mode, asked.return_target, asked.image) == (1, "faithful", True, SELFIE)
    assert asked.model_fields_set == {"image", "num_images", "mode", "return_target"}


async def test_a_form_goes_on_whole(house):
    async with house.client.post("/predictions/faces", data=form(seed="7", align="1,2,30,40")) as response:
        assert (response.status, response.content_type) == (200, "image/png")
    asked = house.upstream.requests[0]
    assert (asked.seed, str(asked.align), asked.image) == (7, "1,2,30,40", SELFIE)


async def test_a_picture_in_json_goes_on_without_base64(house):
    document = {"image": base64.b64encode(SELFIE).decode(), "num_images": 1}
    async with house.client.post("/predictions/faces", json=document) as response:
        assert (response.status, response.content_type) == (200, "application/json")
    assert house.upstream.requests[0].image == SELFIE
    assert house.upstream.headers[0]["Content-Type"].startswith("multipart/")


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
async def test_one_picture_of_the_accepted_type_is_what_the_model_encoded(house, kind):
    accept = {"Accept": f"image/{kind}"}
    async with house.client.post("/predictions/faces", json={}, headers=accept) as response:
        assert (response.status, response.content_type) == (200, f"image/{kind}")
        assert Image.open(io.BytesIO(await response.read())).format == kind.upper()
    assert house.upstream.requests[0].output_format == kind


async def test_faces_only(house):
    async with house.client.post("/predictions/faces", params={"detect_only": "true"}, data=SELFIE) as response:
        result = await response.json()
    assert (result["images"], result["target"]["face"]) == ([], 0)


async def test_events_come_as_lines(house):
    accept = {"Accept": "application/x-ndjson"}
    async with house.client.post("/predictions/faces", json={"preview_every": 2}, headers=accept) as response:
        events = await events_of(response)
    assert response.content_type == "application/x-ndjson"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert [event.event for event in events] == [
        *("queued", "started", "progress", "progress", "preview", "progress", "progress", "image", "end")
    ]


async def test_events_come_as_server_sent_events(house):
    async with house.client.post("/predictions/faces", json={}, headers={"Accept": "text/event-stream"}) as response:
        text = await response.text()
    assert response.content_type == "text/event-stream"
    blocks = [dict(line.split(": ", 1) for line in block.split("\n")) for block in text.strip().split("\n\n")]
    assert all(json.loads(block["data"])["event"] == block["event"] for block in blocks)
    assert blocks[-1]["event"] == "end"


async def test_previews_without_a_stream_are_not_made_and_that_is_said(house):
    async with house.client.post("/predictions/faces", json={"preview_every": 1}) as response:
        result = await response.json()
    assert result["warnings"][0]["code"] == "no_effect"
    assert house.upstream.requests[0].preview_every == 0


async def test_a_preview_goes_to_its_own_request_only(house):
    async def watch(number: int) -> None:
        headers = {"Accept": "application/x-ndjson", "X-Request-Id": f"request-{number}"}
        body = {"preview_every": 1, "num_images": 3}
        async with house.client.post("/predictions/faces", json=body, headers=headers) as response:
            previews = [event for event in await events_of(response) if event.event == "preview"]
        assert len(previews) == 9
        assert {base64.b64decode(each.b64_json).decode() for each in previews} == {f"request-{number}"}

    await asyncio.gather(*(watch(number) for number in range(30)))


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("nobody", 404, "not_found"),
        ("faces/9", 404, "not_found"),
        ("faces/2", 503, "unavailable"),
        ("busy", 503, "busy"),
        ("gone", 503, "unavailable"),
        ("large", 413, "too_large"),
        ("broken", 500, "internal"),
        ("died", 503, "unavailable"),
        ("late", 500, "out_of_memory"),
        ("cut", 503, "unavailable"),
        ("short", 503, "unavailable"),
        ("garbled", 503, "unavailable"),
    ],
)
async def test_whatever_fails_has_its_true_status_and_one_shape(house, model, status, code):
    async with house.client.post(f"/predictions/{model}", json={}) as response:
        error = await error_of(response)
    assert (response.status, error["code"]) == (status, code)
    assert ("Retry-After" in response.headers) == (status == 503)
    assert "pytorch" not in error["message"]


async def test_the_reason_of_a_failed_version_is_told_at_its_own_address(house):
    async with house.client.post("/predictions/faces/2", json={}) as response:
        assert "ValueError: broken weights" in (await error_of(response))["message"]
    async with house.client.post("/predictions/nobody", json={}) as response:
        assert "faces" in (await error_of(response))["allowed"]


@pytest.mark.parametrize("model", ["late", "cut", "short", "garbled"])
async def test_a_stream_that_has_begun_ends_by_an_error_event(house, model):
    accept = {"Accept": "application/x-ndjson"}
    async with house.client.post(f"/predictions/{model}", json={}, headers=accept) as response:
        events = await events_of(response)
    assert response.status == 200
    assert [event.event for event in events] == ["queued", "error"]


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"json": {"num_images": 99}}, 422, "out_of_range"),
        ({"json": {"surprise": 1}}, 422, "unknown_field"),
        ({"json": [1]}, 422, "wrong_type"),
        ({"data": "{", "headers": {"Content-Type": "application/json"}}, 400, "malformed_json"),
        ({"data": "[" * 100_000, "headers": {"Content-Type": "application/json"}}, 400, "malformed_json"),
        ({"data": '{"eta": NaN}', "headers": {"Content-Type": "application/json"}}, 422, "out_of_range"),
        ({"data": '{"seed": 1e999}', "headers": {"Content-Type": "application/json"}}, 422, "wrong_type"),
        ({"data": b""}, 422, "empty_image"),
        ({"data": SELFIE, "headers": URLENCODED}, 415, "unsupported_media_type"),
        ({"data": b"rubbish", "headers": URLENCODED}, 422, "empty_form"),
        ({"data": b"seed=1&seed=2", "headers": URLENCODED}, 422, "conflict"),
        ({"data": "--x--", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 422, "empty_form"),
        ({"data": "rubbish", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 422, "empty_form"),
        ({"data": "rubbish", "headers": {"Content-Type": "multipart/form-data"}}, 422, "empty_form"),
        ({"data": SELFIE, "params": {"seed": "x"}}, 422, "wrong_type"),
        ({"data": SELFIE, "params": [("seed", "1"), ("seed", "2")]}, 422, "conflict"),
        ({"json": {}, "params": {"seed": "1"}}, 422, "conflict"),
        ({"json": {}, "headers": {"Accept": "video/mp4"}}, 406, "not_acceptable"),
    ],
)
async def test_wrong_input_is_refused_before_the_model_is_asked(house, options, status, code):
    async with house.client.post("/predictions/faces", **options) as response:
        error = await error_of(response)
    assert (response.status, error["code"]) == (status, code)
    assert house.upstream.requests == []


async def test_a_form_with_a_field_twice_is_refused(house):
    data = form(seed="1")
    data.add_field("image", SELFIE, filename="other.jpg")
    async with house.client.post("/predictions/faces", data=data) as response:
        assert (await error_of(response))["code"] == "conflict"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/predictions/faces", 405), ("POST", "/nowhere", 404)])
async def test_the_frameworks_own_refusals_have_the_same_shape(house, method, path, status):
    async with house.client.request(method, path) as response:
        assert response.status == status
        await error_of(response)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/predictions/faces", "POST, PUT"),
        ("DELETE", "/predictions/faces/1.0", "POST, PUT"),
        ("POST", "/v1/models", "GET"),
        ("POST", "/", "GET, HEAD"),
        ("GET", "/v1/images/edits", "POST"),
        ("PUT", "/openapi.json", "GET, HEAD"),
        ("POST", "/page/index.html", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(house, method, path, allowed):
    async with house.client.request(method, path) as response:
        assert (response.status, response.headers["Allow"]) == (405, allowed)
        assert (await error_of(response))["code"] == "method_not_allowed"


async def test_no_answer_is_kept_by_anybody_and_each_has_its_request_id(house, lines):
    for given, kept in {"abc-1": True, "a b": False, "x" * 65: False, "": False}.items():
        headers = {"X-Request-Id": given}
        async with house.client.post("/predictions/faces", json={"num_images": 1}, headers=headers) as response:
            result = await response.json()
        name = response.headers["X-Request-Id"]
        assert (name == given) == kept
        assert result["id"] == name
        assert response.headers["Cache-Control"] == "no-store"
        assert name in {getattr(record, "request_id", None) for record in lines.records}


async def test_nothing_of_a_picture_or_a_token_is_logged_or_written(open_house, lines, tmp_path, monkeypatch):
    spool = tmp_path / "spool"
    spool.mkdir()
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(spool))
    monkeypatch.setattr("tempfile.tempdir", None)
    token, photo = "a-secret-token-of-many", SELFIE * 200_000  # 9 MB
    written: list[str] = []

    async with open_house(tokens=f"alice {token}\n") as house:
        headers = {"Authorization": f"Bearer {token}"}

        async def watch() -> None:
            while True:
                written.extend(path.name for path in spool.iterdir())
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", lambda _: written.append("rollover"))
        data = aiohttp.FormData({"num_images": "1"})
        data.add_field("image", io.BytesIO(photo), filename="my-holiday.jpg")
        async with house.client.post("/predictions/faces", data=data, headers=headers) as response:
            assert response.status == 200
        data = aiohttp.FormData({"extra": "1"})
        data.add_field("image", io.BytesIO(photo), filename="my-holiday.jpg")
        async with house.client.post("/predictions/faces", data=data, headers=headers) as response:
            assert response.status == 422
        watching.cancel()

    assert written == []
    said = "\n".join(str(vars(record)) for record in lines.records)
    assert [record.caller for record in lines.records if record.message == "generated"] == ["alice"]
    for secret in ("a selfie", "my-holiday", token, base64.b64encode(SELFIE).decode()[:20]):
        assert secret not in said
