"""Pictures that threads encode while the next steps are made, as on a GPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from handlers import answer as answers

NDJSON = "application/x-ndjson"


@pytest.fixture
def beside(frontend, monkeypatch):
    """The worker, with threads for its pictures."""
    with ThreadPoolExecutor(2) as encoders:
        monkeypatch.setattr(frontend.handler, "encoders", encoders)
        yield frontend


@pytest.fixture
def held(monkeypatch):
    """Pictures are encoded as soon as this is set."""
    encode, may = answers.encode, Event()

    def slow(*args):
        assert may.wait(60)
        return encode(*args)

    monkeypatch.setattr(answers, "encode", slow)
    yield may
    may.set()


def test_others_go_on_while_pictures_are_encoded_and_events_keep_their_order(beside, held):
    asked = {"num_images": 2, "num_inference_steps": 4, "preview_every": 2}
    stream, other = beside.json(asked, accept=NDJSON), beside.json({"num_inference_steps": 12}, accept=NDJSON)
    for _ in range(8):
        beside.call()
    assert stream.names == ["started", "progress"]  # a preview is encoded since
    assert other.names == ["started", *["progress"] * 8]

    held.set()
    beside.finish(stream, other)
    progress = ["progress"] * 2
    assert stream.names == ["started", *progress, "preview", "preview", *progress, "image", "image", "end"]
    assert other.names == ["started", *["progress"] * 12, "image", "end"]


@pytest.mark.parametrize("accept", ["application/json", "image/png"])
def test_whole_answers_are_those_of_a_worker_that_encodes_by_itself(frontend, beside, accept, monkeypatch):
    asked = {"seed": 3, "num_images": 5, "num_inference_steps": 2}
    pictures = []
    for encoders in (beside.handler.encoders, None):
        monkeypatch.setattr(frontend.handler, "encoders", encoders)
        job = frontend.json(asked, accept=accept)
        frontend.finish(job)
        assert (job.status, job.content_type) == (200, accept)
        pictures.append(job.json["images"] if accept.endswith("json") else job.body)
    assert pictures[0] == pictures[1]


def test_grpc_waits_for_its_pictures_in_its_one_call(beside):
    job = beside.grpc(num_images=b"2", num_inference_steps=b"1")
    beside.call()

    assert job.ended
    assert len(job.json["images"]) == 2


def test_a_stream_is_not_interrupted_by_a_heartbeat_while_its_pictures_are_encoded(beside, held, monkeypatch):
    monkeypatch.setattr(answers, "HEARTBEAT", 0.0)
    stream = beside.json({"num_inference_steps": 1}, accept="text/event-stream")
    for _ in range(3):
        beside.call()
    assert stream.body == b""

    held.set()
    beside.finish(stream)
    assert b"event: end" in stream.body


def test_a_picture_that_cannot_be_encoded_fails_its_request_alone(beside, monkeypatch, caplog):
    encode = answers.encode

    def failing(pixels, output_format, parameters):
        if parameters["seed"] == 13:
            raise RuntimeError("secret")
        return encode(pixels, output_format, parameters)

    monkeypatch.setattr(answers, "encode", failing)
    unlucky, other = (beside.json({"seed": seed, "num_inference_steps": 2}, accept=NDJSON) for seed in (13, 14))
    beside.finish(unlucky, other)

    assert unlucky.names[-1] == "error"
    assert unlucky.events[-1].error.code == "internal"
    assert other.names[-1] == "end"
    assert "secret" not in caplog.text


def test_who_leaves_while_his_pictures_are_encoded_disturbs_nobody(beside, held):
    leaving, staying = (beside.json({"num_inference_steps": steps}, accept=NDJSON) for steps in (1, 4))
    beside.call()
    beside.leave(leaving)
    beside.call()
    held.set()
    beside.finish(staying)
    assert staying.names[-1] == "end"
