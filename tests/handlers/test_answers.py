"""Whole answers of the handler, called as TorchServe calls it."""

from __future__ import annotations

import base64
import io
import json

import pytest
from PIL import Image

NDJSON = "application/x-ndjson"


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


def test_a_handler_call_ends_when_a_request_does(frontend):
    frontend.handler.settings = frontend.handler.settings.model_copy(update={"tick_seconds": 60.0})
    short, long = (frontend.json({"num_inference_steps": steps}) for steps in (2, 12))
    frontend.call()

    assert (short.ended, long.ended) == (True, False)
    frontend.finish(long)


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
    assert [each["mode"] for each in used] == ["celebrity", "celebrity"]


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
    assert all(0 <= image["resemblance_score"] <= 1 for image in job.json["images"])
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
    frontend.answer(job)

    assert job.ended
    assert (len(job.json["target"]["faces"]), job.json["target"]["face"], job.json["images"]) == (1, 0, [])
    assert [warning["code"] for warning in job.json["warnings"]] == ["no_effect"]


def test_a_describe_request_is_told_what_the_version_is_beside_running_ones(frontend):
    running = frontend.json({"num_inference_steps": 3})
    frontend.call()
    asked = frontend.raw(b"", describe="True")
    frontend.call()

    assert asked.ended
    assert (asked.status, asked.content_type) == (200, "application/json")
    assert {"name": "toy", "image_size": 32, "channels": 3, "requests": 1}.items() <= asked.json.items()
    assert "faithful" in asked.json["modes"]
    frontend.finish(running)
    assert running.status == 200
