"""Requests that come over TorchServe's own gRPC."""

from __future__ import annotations

import re

import pytest

from ddpm_api import ProgressEvent

NDJSON = "application/x-ndjson"


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
    assert stream.names[-1] == "end"
