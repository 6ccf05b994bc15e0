"""The handler's three stages, called as TorchServe calls them."""

from __future__ import annotations

import base64
import io
import json
import logging
import math
import re
import time
import zlib

import pytest
from PIL import Image

from ddpm_api import ImageEvent, PreviewEvent, ProgressEvent
from handlers.answer import HEARTBEAT
from handlers.ddpm_handler import Handler

NDJSON = "application/x-ndjson"


def names(job) -> list[str]:
    return [event.event for event in job.events]


# -- whole answers


def test_an_empty_json_object_makes_one_unguided_image(frontend):
    job = frontend.json({})
    frontend.finish(job)

    assert (job.status, job.content_type) == (200, "application/json")
    assert job.calls == 25  # a tick a call, as the fixture has it
    assert job.json["timing"]["calls"] == 25
    assert job.json["parameters"]["mode"] == "none"
    assert [(image["width"], image["height"]) for image in job.json["images"]] == [(32, 32)]


def test_a_raw_picture_is_answered_by_a_sheet_of_five(frontend, selfie):
    job = frontend.raw(selfie)
    frontend.finish(job)

    assert (job.status, job.content_type) == (200, "image/png")
    assert job.picture.size == (96, 64)


def test_an_answer_complete_in_its_first_call_is_a_plain_response(frontend):
    job = frontend.json({"num_inference_steps": 1})
    frontend.call()

    assert job.ended
    assert len(job.json["images"]) == 1


def test_a_handler_call_makes_as_many_ticks_as_fit(frontend):
    frontend.handler.settings = frontend.handler.settings.model_copy(update={"tick_seconds": 60.0})
    job = frontend.json({})
    frontend.call()

    assert job.ended


def test_what_was_used_is_reported_and_makes_the_same_image_again(frontend, selfie):
    packed = base64.b64encode(selfie).decode()
    first = frontend.json({"image": packed, "num_images": 2, "resemblance": 0.6})
    frontend.finish(first)
    used = first.json["parameters"]
    again = frontend.json({"image": packed} | used)
    frontend.finish(again)

    assert used["num_inference_steps"] > 1
    assert used["seed"] == first.json["images"][0]["seed"] == first.json["images"][1]["seed"] - 1
    assert again.json["parameters"] == used
    assert again.json["images"] == first.json["images"]


def test_auto_follows_a_face_and_says_when_there_is_none_to_follow(frontend, selfie, faceless):
    followed, lost = (frontend.form({"image": each, "num_images": b"1"}, Accept=NDJSON) for each in (selfie, faceless))
    frontend.finish(followed, lost)
    told = [[event.code for event in job.events if event.event == "warning"] for job in (followed, lost)]
    used = [next(event for event in job.events if event.event == "started").parameters for job in (followed, lost)]
    assert told == [[], ["no_face", "no_face_to_follow"]]
    assert [each["mode"] for each in used] == ["likeness", "celebrity"]


def test_a_picture_carries_its_own_seed_and_its_model(frontend):
    job = frontend.json({"num_images": 2, "seed": 5, "num_inference_steps": 2})
    frontend.finish(job)

    files = [Image.open(io.BytesIO(base64.b64decode(image["b64_json"]))) for image in job.json["images"]]
    inside = [json.loads(file.info["parameters"]) for file in files]
    assert [(each["seed"], each["model"], each["version"]) for each in inside] == [(5, "toy", "1.0"), (6, "toy", "1.0")]


def test_the_best_of_many_are_kept(frontend, selfie):
    job = frontend.form(
        {"image": selfie, "num_images": b"2", "best_of": b"5", "seed": b"10"}, accept="*/*;q=0.1,application/json"
    )
    frontend.finish(job)

    assert len(job.json["images"]) == 2
    assert {image["seed"] for image in job.json["images"]} <= {10, 11, 12, 13, 14}
    assert (job.json["parameters"]["num_images"], job.json["parameters"]["best_of"]) == (2, 5)


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_pictures_come_in_the_format_asked_for(output_format, frontend):
    job = frontend.json({"num_inference_steps": 1, "output_format": output_format}, accept="image/*")
    frontend.finish(job)

    assert job.content_type == f"image/{output_format}"
    assert job.picture.format == output_format.upper()


def test_the_target_is_given_back_on_request_and_not_marked_as_generated(frontend, selfie):
    job = frontend.form(
        {"image": selfie, "return_target": b"true", "num_inference_steps": b"1"}, accept="application/json"
    )
    frontend.finish(job)

    target = Image.open(io.BytesIO(base64.b64decode(job.json["target"]["b64_json"])))
    assert target.size == (32, 32)
    assert target.info == {}
    assert len(job.json["target"]["faces"]) == 1


def test_faces_are_told_at_once_without_generating(frontend, selfie):
    job = frontend.form({"image": selfie, "detect_only": b"true", "seed": b"1"})
    frontend.call()

    assert job.ended
    assert (len(job.json["target"]["faces"]), job.json["target"]["face"], job.json["images"]) == (1, 0, [])
    assert [warning["code"] for warning in job.json["warnings"]] == ["no_effect"]


# -- streams


def test_a_stream_that_prefers_the_least_leaves_the_steps_out(frontend, selfie):
    job = frontend.form({"image": selfie, "num_inference_steps": b"4"}, accept=NDJSON, prefer="return=minimal")
    frontend.finish(job)

    assert names(job) == ["started", *["image"] * 5, "end"]


def test_a_stream_tells_everything_in_order(frontend, selfie):
    job = frontend.form(
        {"image": selfie, "num_images": b"2", "num_inference_steps": b"4", "preview_every": b"2"}, accept=NDJSON
    )
    frontend.finish(job)

    progress = ["progress"] * 2
    assert names(job) == ["started", *progress, "preview", "preview", *progress, "image", "image", "end"]
    assert [event.step for event in job.events if isinstance(event, ProgressEvent)] == [1, 2, 3, 4]
    assert {event.content_type for event in job.events if isinstance(event, PreviewEvent)} == {"image/jpeg"}
    assert [event.index for event in job.events if isinstance(event, ImageEvent)] == [0, 1]
    assert all(chunk for chunk in job.chunks)


def test_warnings_come_before_the_start(frontend):
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(file, "PNG")
    job = frontend.raw(file.getvalue(), accept=NDJSON)
    frontend.finish(job)

    assert names(job)[:3] == ["warning", "warning", "started"]  # there is no face, and so none to follow
    assert job.events[0].code == "no_face"


def test_one_who_waits_is_told_the_position(start):
    frontend = start(tick_seconds=1e-9)
    frontend.handler.engine.max_rows = 1
    first = frontend.json({"num_inference_steps": 3}, accept=NDJSON)
    frontend.call()
    second = frontend.json({"num_inference_steps": 30}, accept=NDJSON)
    frontend.call()

    assert names(second) == ["queued"]
    assert second.events[0].position == 1
    frontend.finish(first, second)
    assert names(second)[1] == "started"


def test_a_silent_stream_shows_that_it_is_alive(start):
    frontend = start(tick_seconds=1e-9)
    frontend.handler.engine.max_rows = 1
    busy = frontend.json({"num_inference_steps": 20})
    frontend.call()
    waiting = frontend.json({"num_inference_steps": 900}, accept="text/event-stream")
    frontend.call()
    frontend.call()
    assert waiting.chunks[1] == b""

    answer = frontend.handler._answers[waiting.key]
    answer._last_sent -= HEARTBEAT
    frontend.call()

    assert waiting.chunks[2] == b": heartbeat\n\n"
    assert b"heartbeat" not in busy.body


# -- many at once


def test_a_request_joins_between_the_steps_of_another(frontend):
    first = frontend.json({"num_inference_steps": 9}, accept=NDJSON)
    frontend.call()
    second = frontend.json({"num_inference_steps": 2}, accept=NDJSON)
    frontend.call()

    assert names(second) == ["started", "progress"]
    frontend.finish(second)
    assert not first.ended
    frontend.finish(first)
    assert names(first)[-1] == "end"


def test_a_seed_gives_its_image_whatever_shares_the_batch(frontend):
    alone = frontend.json({"seed": 7, "num_inference_steps": 6})
    frontend.finish(alone)
    others = [frontend.json({"num_images": 3, "num_inference_steps": 5 + i}) for i in range(2)]
    frontend.call()
    together = frontend.json({"seed": 7, "num_inference_steps": 6})
    frontend.finish(together, *others)

    assert together.json["images"] == alone.json["images"]


def test_a_client_that_leaves_frees_its_place_and_disturbs_nobody(frontend):
    leaving, staying = (frontend.json({"num_inference_steps": 5}) for _ in range(2))
    frontend.call()
    frontend.leave(leaving)
    frontend.call()

    assert len(frontend.handler.engine) == 1
    frontend.finish(staying)
    assert len(staying.json["images"]) == 1


def test_when_all_leave_their_state_is_dropped_and_who_returns_is_told(start):
    frontend = start(tick_seconds=1e-9, idle_seconds=0.1)
    jobs = [frontend.json({}, accept=accept) for accept in (NDJSON, "application/json")]
    frontend.call()
    handler = frontend.handler
    deadline = time.monotonic() + 30
    while len(handler.engine) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(handler.engine) == 0

    frontend.call()

    assert [job.ended for job in jobs] == [True, True]
    assert names(jobs[0])[-1] == "error"
    assert jobs[1].error["code"] == jobs[0].events[-1].error.code == "unavailable"


def test_a_full_service_refuses_with_the_time_to_come_back(start):
    frontend = start(capacity=1, tick_seconds=1e-9)
    running = frontend.json({})
    refused = frontend.raw(b"would not even be looked at", accept="image/png")
    frontend.call()

    assert (refused.status, refused.error["code"], refused.content_type) == (503, "busy", "application/json")
    assert int(refused.response_headers["Retry-After"]) >= 1
    frontend.finish(running)
    assert running.status == 200


def test_a_failing_network_fails_the_request_alone(frontend, caplog):
    others = [frontend.json({"num_images": 2}), frontend.json({}, accept=NDJSON)]
    failing = frontend.json({"num_inference_steps": 16})
    streaming = frontend.json({"num_inference_steps": 16}, accept=NDJSON)
    frontend.finish(failing, streaming, *others)

    assert failing.error["code"] == "generation_failed"
    assert names(streaming) == ["started", *["progress"] * 11, "error"]
    assert len(others[0].json["images"]) == 2
    assert names(others[1])[-1] == "end"
    assert "5ec2e7" not in caplog.text + failing.body.decode() + streaming.body.decode()


def test_a_tick_that_breaks_ends_what_was_open_and_the_worker_goes_on(frontend, monkeypatch, caplog):
    def broken():
        raise KeyError("a picture's words")

    jobs = [frontend.json({}), frontend.json({}, accept=NDJSON)]
    frontend.call()
    with monkeypatch.context() as patch:
        patch.setattr(frontend.handler.engine, "tick", broken)
        frontend.call()

    assert jobs[0].error["code"] == jobs[1].events[-1].error.code == "internal"
    assert "KeyError in ['_tick" in caplog.text
    assert "a picture's words" not in caplog.text
    after = frontend.json({})
    frontend.finish(after)
    assert after.status == 200


# -- what is refused


def picture(size=(64, 64), kind="PNG") -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(file, kind)
    return file.getvalue()


def claimed_huge() -> bytes:
    """A small PNG whose header says 65535 × 65535."""
    file = picture()
    header = b"IHDR" + b"\0\0\xff\xff" * 2 + file[24:29]
    return file[:12] + header + zlib.crc32(header).to_bytes(4, "big") + file[33:]


BAD = [
    ("raw", b"", 422, "empty_image", "image"),
    ("raw", b"GIF8 but not an image", 415, "not_an_image", "image"),
    ("raw", picture()[:1500], 422, "truncated_image", "image"),
    ("raw", picture((8, 8)), 422, "too_small", "image"),
    ("raw", claimed_huge(), 413, "too_many_pixels", "image"),
    ("json", b"{", 400, "malformed_json", None),
    ("json", b"[" * 100_000, 400, "malformed_json", None),
    ("json", b"\xff\xfe\xfa", 400, "malformed_json", None),
    ("json", [1], 422, "wrong_type", None),
    ("json", "text", 422, "wrong_type", None),
    ("json", {"nmu_images": 3}, 422, "unknown_field", "nmu_images"),
    ("json", {"num_images": 99}, 422, "out_of_range", "num_images"),
    ("json", {"num_images": "3"}, 422, "wrong_type", "num_images"),
    ("json", {"num_images": None}, 422, "wrong_type", "num_images"),
    ("json", {"eta": math.nan}, 422, "out_of_range", "eta"),
    ("json", b'{"eta": 1e999}', 422, "out_of_range", "eta"),
    ("json", {"num_inference_steps": 1001}, 422, None, "num_inference_steps"),
    ("json", {"num_inference_steps": 1000, "num_images": 16}, 422, "too_much_work", "num_inference_steps"),
    ("json", {"sampler": "euler"}, 422, "unknown_value", "sampler"),
    ("json", {"mode": "likeness"}, 422, "image_required", "mode"),
    ("json", {"image": "&&&"}, 422, "not_base64", "image"),
    ("form", {}, 422, "empty_form", None),
    ("form", {"image": picture(), "face": b"3"}, 422, "out_of_range", "face"),
    ("form", {"image": picture(), "align": b"0,0,500,500"}, 422, "out_of_range", "align"),
    ("form", {"image": picture(), "resemblance": b"inf"}, 422, "out_of_range", "resemblance"),
]


@pytest.mark.parametrize(("kind", "body", "status", "code", "field"), BAD, ids=lambda value: str(value)[:24])
def test_bad_input_is_answered_at_once_and_others_go_on(kind, body, status, code, field, frontend):
    running = frontend.json({"num_inference_steps": 3})
    frontend.call()
    refused = getattr(frontend, kind)(body, accept="image/png")
    frontend.call()

    assert refused.ended
    assert (refused.status, refused.content_type) == (status, "application/json")
    assert refused.error["code"] == (code or refused.error["code"])
    assert (refused.error["field"], bool(refused.error["message"])) == (field, True)
    frontend.finish(running)
    assert running.status == 200


def test_what_cannot_be_accepted_is_named(frontend):
    job = frontend.json({}, accept="video/mp4")
    frontend.call()

    assert (job.status, job.error["field"], job.error["given"]) == (406, "Accept", "video/mp4")


def test_an_error_that_nobody_foresaw_is_told_without_its_words(frontend, selfie, monkeypatch, caplog):
    def broken(*_args, **_more):
        raise ValueError(selfie[:50].hex())

    with monkeypatch.context() as patch:
        patch.setattr(frontend.handler.pipeline, "aim", broken)
        job = frontend.raw(selfie)
        frontend.call()

    assert (job.status, job.error["code"]) == (500, "internal")
    assert "ValueError in" in caplog.text
    assert selfie[:8].hex() not in caplog.text + job.body.decode()


# -- over TorchServe's gRPC


def test_grpc_is_answered_whole_in_its_first_call_beside_a_stream(frontend, selfie):
    stream = frontend.json({"num_inference_steps": 40}, accept=NDJSON)
    frontend.call()
    job = frontend.grpc(data=selfie, num_images=b"2", num_inference_steps=b"5")
    frontend.call()

    assert job.ended
    assert (job.content_type, len(job.json["images"])) == ("application/json", 2)
    assert len(re.findall(b'"progress"', stream.chunks[-1])) >= 5  # it went on, and loses nothing
    frontend.finish(stream)
    assert [event.step for event in stream.events if isinstance(event, ProgressEvent)] == [*range(1, 41)]


def test_grpc_chooses_its_rendering_by_a_field(frontend):
    job = frontend.grpc(seed=b"1", accept=b"image/webp")
    frontend.call()

    assert job.picture.format == "WEBP"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "empty_form"),
        ({"data": b"no picture"}, "not_an_image"),
        ({"num_images": b"16", "num_inference_steps": b"100"}, "too_much_work"),
        ({"seed": b"1", "accept": b"\xff"}, "not_acceptable"),
        ({"num_inference_steps": b"16"}, "generation_failed"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_grpc_is_refused_by_the_error_object(fields, code, frontend):
    job = frontend.grpc(**fields)
    frontend.call()

    assert job.error["code"] == code


def test_grpc_that_takes_too_long_is_given_up_and_others_go_on(frontend):
    frontend.handler.settings = frontend.handler.settings.model_copy(update={"grpc_seconds": 1e-9})
    stream = frontend.json({"num_inference_steps": 9}, accept=NDJSON)
    job = frontend.grpc(num_inference_steps=b"50")
    frontend.call()

    assert job.error["code"] == "timeout"
    frontend.finish(stream)
    assert names(stream)[-1] == "end"


# -- identity, figures, silence


@pytest.mark.parametrize("given", ["abc-1.2_3", "A" * 64])
def test_a_harmless_request_id_is_taken(given, frontend):
    job = frontend.json({"num_inference_steps": 1}, X_REQUEST_ID=given)
    frontend.finish(job)

    assert job.json["id"] == given


@pytest.mark.parametrize("given", ["", "a b", "a\r\nSet-Cookie: x", "A" * 65, "ä"])
def test_any_other_request_id_is_replaced_and_reaches_no_header(given, frontend):
    job = frontend.json({"num_inference_steps": 1}, X_Request_Id=given)
    frontend.finish(job)

    assert job.json["id"] == job.key
    assert set(job.response_headers) == {"content-type"}


def test_figures_are_told_to_torchserve(frontend, selfie, caplog):
    caplog.set_level(logging.INFO)
    good = frontend.form({"image": selfie, "num_images": b"3", "num_inference_steps": b"2", "mode": b"faithful"})
    bad = frontend.json({"num_images": 0})
    frontend.finish(good, bad)

    def figure(name: str, labels: str = "") -> float:
        found = re.findall(
            rf"\[METRICS\]{name}\.\w+:([\d.e-]+)\|#ModelName:toy,ModelVersion:1\.0{labels}\|", caplog.text
        )
        return sum(map(float, found))

    assert figure("ddpm_ticks_total") == 2
    assert figure("ddpm_row_steps_total") == 6
    assert figure("ddpm_images_total", ",Mode:faithful") == 3
    assert figure("ddpm_rejected_total", ",Reason:out_of_range") == 1
    assert figure("ddpm_queue_wait_seconds") >= 0
    assert figure("ddpm_memory_bytes", ",Where:host") > 1e7
    assert figure("ddpm_max_rows") == frontend.handler.engine.max_rows
    assert figure("ddpm_tick_seconds_total") > 0


def test_nothing_of_a_request_is_logged(frontend, selfie, caplog):
    caplog.set_level(logging.DEBUG)
    jobs = [
        frontend.raw(selfie),
        frontend.json({"image": base64.b64encode(selfie).decode()}),
        frontend.raw(selfie[:99]),
    ]
    frontend.finish(*jobs)

    lines = [record.getMessage() for record in caplog.records if "[METRICS]" not in record.getMessage()]
    assert [line for line in lines if not line.startswith(("STREAM", "Image: failed"))] == []


# -- loading


def test_a_model_that_cannot_be_served_says_why_in_a_line(make_context, tmp_path, write_toy_bundle):
    folder = write_toy_bundle(tmp_path / "bundle")
    (folder / "toy.py").write_text("raise SystemExit")

    with pytest.raises(RuntimeError, match=r"toy\.py has changed: its SHA-256 is \w+, bundle\.json says \w+\.$"):
        Handler(make_context(tmp_path))


def test_a_face_detector_that_is_none_is_an_error_at_the_start(make_context, tmp_path, write_toy_bundle, monkeypatch):
    write_toy_bundle(tmp_path / "bundle")
    monkeypatch.setenv("DDPM_FACE_DETECTOR", str(tmp_path / "yunet.onnx"))
    with pytest.raises(RuntimeError, match=r"The face detector's file is not found\.$"):
        Handler(make_context(tmp_path))
    (tmp_path / "yunet.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(RuntimeError, match=r"The face detector's file is not a YuNet ONNX model\.$"):
        Handler(make_context(tmp_path))
