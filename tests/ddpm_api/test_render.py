"""The renderings: which one is chosen, and what comes out of each."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any, Literal

import pytest
from PIL import Image

from ddpm_api import (
    Error,
    ErrorEvent,
    Event,
    InvalidRequest,
    Kind,
    OutputFormat,
    Rendering,
    choose,
    contact_sheet,
    parse_event,
    parse_json,
)

Story = Callable[..., list[Event]]
JSON, PNG, JPEG, WEBP = "application/json", "image/png", "image/jpeg", "image/webp"
NDJSON, SSE = "application/x-ndjson", "text/event-stream"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"


def chosen(accept: str | None, content_type: str | None = None, **fields: Any) -> Rendering:
    return choose(accept, content_type, request=parse_json(fields))


# --- by Accept ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [None, "", "*/*", "*", "*/*;q=0.1"])
@pytest.mark.parametrize(
    ("content_type", "transport", "answer"),
    [
        ("application/json", "http", JSON),
        ("Application/JSON; charset=utf-8", "http", JSON),
        ("image/jpeg", "http", PNG),
        ("application/octet-stream", "http", PNG),
        ("multipart/form-data; boundary=x", "http", PNG),
        (None, "http", PNG),
        (None, "grpc", JSON),
        ("image/jpeg", "grpc", JSON),
    ],
)
def test_left_open_the_kind_of_request_decides(
    accept: str | None, content_type: str | None, transport: Literal["http", "grpc"], answer: str
) -> None:
    assert choose(accept, content_type, transport, request=parse_json({})).content_type == answer


@pytest.mark.parametrize(
    ("accept", "answer"),
    [
        ("image/*", PNG),
        ("image/png", PNG),
        ("IMAGE/PNG", PNG),
        ("image/jpeg", JPEG),
        ("image/webp", WEBP),
        ("application/json", JSON),
        ("application/json; charset=utf-8", JSON),
        ("application/*", JSON),
        ("application/x-ndjson", NDJSON),
        ("text/event-stream", SSE),
        ("text/*", SSE),
        ("text/event-stream, application/json", SSE),
        ("application/json, text/event-stream", JSON),
        ("application/json, text/plain, */*", JSON),
        ("application/json;q=0.5, text/event-stream", SSE),
        ("application/json;q=0.5, text/event-stream;q=0.4", JSON),
        ("image/png;q=0, */*", JPEG),
        ("image/*;q=0, */*", JSON),
        ("*/*;q=0.5, application/x-ndjson;q=0.6", NDJSON),
        ("text/plain, application/json;q=0.001", JSON),
        ("image/png;q=high, application/json", JSON),
        (BROWSER, WEBP),
    ],
)
def test_accept_decides_by_quality_then_exactness_then_order(accept: str, answer: str) -> None:
    assert chosen(accept).content_type == answer


@pytest.mark.parametrize(
    "accept",
    [
        "text/plain",
        "image/gif",
        "video/*",
        "json",
        "application/json;q=0",
        "*/*;q=0",
        "image/png;q=2",
        ";;,,",
        "a\r\nb",
    ],
)
def test_an_answer_that_cannot_be_given_is_406(accept: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chosen(accept)
    assert (caught.value.status, caught.value.error.code) == (406, "not_acceptable")
    assert caught.value.error.allowed == f"{PNG}, {JPEG}, {WEBP}, {JSON}, {NDJSON}, {SSE}"


def test_the_output_format_that_was_asked_for_is_kept() -> None:
    assert chosen("image/*", output_format="webp").content_type == WEBP
    assert chosen("image/png, image/webp;q=0.1", output_format="webp").content_type == WEBP
    with pytest.raises(InvalidRequest, match="image/webp"):
        chosen("image/png", output_format="webp")


@pytest.mark.parametrize(
    ("accept", "wanted"), [("image/jpeg", "jpeg"), ("image/*", "png"), ("application/json", "png")]
)
def test_the_rendering_says_what_to_encode_the_pictures_in(accept: str, wanted: str) -> None:
    assert chosen(accept).output_format is OutputFormat(wanted)
    assert chosen(None, JSON, output_format="jpeg").output_format is OutputFormat.JPEG


def test_faces_found_are_never_answered_with_a_picture() -> None:
    fields = {"image": "aGk=", "detect_only": True}
    assert chosen("*/*", "image/png", **fields).kind is Kind.JSON
    assert chosen("image/*, text/event-stream;q=0.1", **fields).kind is Kind.SSE
    with pytest.raises(InvalidRequest, match=r"application/json"):
        chosen("image/*", **fields)


@pytest.mark.parametrize(("accept", "streams"), [(PNG, False), (JSON, False), (NDJSON, True), (SSE, True)])
def test_only_events_stream_and_have_a_heartbeat(accept: str, streams: bool) -> None:
    rendering = chosen(accept)
    assert rendering.streams is streams
    assert bool(rendering.heartbeat) is streams


# --- what comes out -------------------------------------------------------------------------------------------------


def test_ndjson_is_each_event_at_once(story: Story) -> None:
    rendering = chosen(NDJSON)
    events = story("red", "blue")
    assert [parse_event(rendering.feed(event)) for event in events] == events
    assert rendering.status == 200


def test_server_sent_events_are_each_event_at_once(story: Story) -> None:
    rendering = chosen(SSE)
    for event in story("red", "blue"):
        assert rendering.feed(event).startswith(b"event: " + event.event.encode() + b"\ndata: {")


def test_heartbeats_are_no_events() -> None:
    assert chosen(NDJSON).heartbeat.strip() == b""
    assert chosen(SSE).heartbeat.startswith(b":")


def test_the_json_result_comes_whole_at_the_end(story: Story) -> None:
    rendering = chosen(JSON)
    *silent, answer = [rendering.feed(event) for event in story("red", "blue")]
    assert set(silent) == {b""}
    assert [image["index"] for image in json.loads(answer)["images"]] == [0, 1]


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_one_picture_is_answered_byte_for_byte(
    story: Story, picture_file: Callable[..., bytes], output_format: str
) -> None:
    rendering = chosen("image/*", output_format=output_format)
    *silent, answer = [rendering.feed(event) for event in story("red", output_format=output_format)]
    assert set(silent) == {b""}
    assert answer == picture_file("red", output_format)


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_several_pictures_are_a_contact_sheet_with_the_mark(story: Story, output_format: str) -> None:
    rendering = chosen("image/*", output_format=output_format, num_images=3)
    answer = [rendering.feed(event) for event in story("red", "lime", "blue", output_format=output_format)][-1]
    sheet = Image.open(io.BytesIO(answer))
    assert (sheet.size, sheet.format) == ((16, 16), output_format.upper())
    assert b"trainedAlgorithmicMedia" in sheet.info["xmp"]
    for spot, colour in {(4, 4): "red", (12, 4): "lime", (4, 12): "blue", (12, 12): "white"}.items():
        pixel, wanted = sheet.convert("RGB").getpixel(spot), Image.new("RGB", (1, 1), colour).getpixel((0, 0))
        assert max(abs(a - b) for a, b in zip(pixel, wanted, strict=True)) < 24


def test_a_picture_in_another_format_than_accepted_is_brought_into_it(story: Story) -> None:
    rendering = chosen("image/jpeg")
    answer = [rendering.feed(event) for event in story("red")][-1]
    assert Image.open(io.BytesIO(answer)).format == "JPEG"


def test_nothing_follows_the_end(story: Story) -> None:
    for accept in (PNG, JSON, NDJSON, SSE):
        rendering = chosen(accept)
        events = story("red")
        for event in events:
            rendering.feed(event)
        assert rendering.feed(events[-1]) == b""


# --- failures -------------------------------------------------------------------------------------------------------

BUSY = ErrorEvent(error=Error(code="busy", message="The queue is full.", retry_after=7))


@pytest.mark.parametrize("accept", [PNG, JSON, NDJSON, SSE])
def test_an_error_before_anything_was_sent_is_an_answer_of_its_own(accept: str) -> None:
    rendering = chosen(accept)
    body = rendering.feed(BUSY)
    assert json.loads(body)["error"]["code"] == "busy"
    assert (rendering.status, rendering.content_type, rendering.retry_after) == (503, JSON, 7)


@pytest.mark.parametrize("accept", [PNG, JSON])
def test_a_late_error_of_a_whole_answer_is_the_error_alone(accept: str, story: Story) -> None:
    rendering = chosen(accept)
    assert {rendering.feed(event) for event in story("red")[:-1]} == {b""}
    assert set(json.loads(rendering.feed(BUSY))) == {"error"}
    assert (rendering.status, rendering.content_type) == (503, JSON)


def test_a_late_error_of_a_stream_is_its_last_event(story: Story) -> None:
    lines, sse = chosen(NDJSON), chosen(SSE)
    for event in story("red")[:-1]:
        lines.feed(event)
        sse.feed(event)
    assert json.loads(lines.feed(BUSY))["event"] == "error"
    assert sse.feed(BUSY).startswith(b"event: error\n")
    assert (lines.status, lines.content_type) == (200, NDJSON)


# --- the contact sheet ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 2, 2), (5, 3, 2), (6, 3, 2), (16, 4, 4)]
)
def test_a_sheet_is_as_square_as_it_goes(
    count: int, columns: int, rows: int, picture_file: Callable[..., bytes]
) -> None:
    sheet = Image.open(io.BytesIO(contact_sheet([picture_file("red")] * count, OutputFormat.PNG)))
    assert sheet.size == (columns * 8, rows * 8)


def test_unequal_pictures_are_centred(picture_file: Callable[..., bytes]) -> None:
    files = [picture_file("red", size=(4, 4)), picture_file("blue")]
    sheet = Image.open(io.BytesIO(contact_sheet(files, OutputFormat.PNG)))
    assert sheet.size == (16, 8)
    assert [sheet.getpixel(spot) for spot in ((1, 1), (2, 2), (5, 5), (6, 6))] == [
        (255, 255, 255),
        (255, 0, 0),
        (255, 0, 0),
        (255, 255, 255),
    ]


def test_a_sheet_with_a_photograph_first_is_still_marked(picture_file: Callable[..., bytes]) -> None:
    photograph = io.BytesIO()
    Image.new("RGB", (8, 8)).save(photograph, "PNG")
    sheet = Image.open(io.BytesIO(contact_sheet([photograph.getvalue(), picture_file("red")], OutputFormat.PNG)))
    assert b"trainedAlgorithmicMedia" in sheet.info["xmp"]


def test_a_sheet_needs_a_picture() -> None:
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([], OutputFormat.PNG)
