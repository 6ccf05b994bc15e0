"""Many requests at once: they share the batch, and nothing else."""

from __future__ import annotations

import base64
import io
import time
from concurrent.futures import Future

import numpy as np
import pytest
from PIL import Image

from ddpm_core.errors import InvalidInput
from handlers import answer as answers

NDJSON = "application/x-ndjson"


def test_a_request_joins_between_the_steps_of_another(frontend):
    first = frontend.json({"num_inference_steps": 9}, accept=NDJSON)
    frontend.call()
    second = frontend.json({"num_inference_steps": 2}, accept=NDJSON)
    frontend.call()

    assert second.names == ["started", "progress"]
    frontend.finish(second)
    assert not first.ended
    frontend.finish(first)
    assert first.names[-1] == "end"


def test_on_a_gpu_the_others_next_step_is_under_way_when_an_answer_goes_out(frontend, monkeypatch):
    monkeypatch.setattr(frontend.handler.engine, "ahead", 1)
    calls = []
    watch = frontend.handler.engine.denoiser.network.register_forward_pre_hook(lambda *_: calls.append(1))
    short = frontend.json({"num_inference_steps": 3}, accept=NDJSON)
    long = frontend.json({"num_inference_steps": 9}, accept=NDJSON)
    while not short.ended:
        frontend.call()

    assert long.names.count("progress") == 3
    assert len(calls) == 4
    watch.remove()
    frontend.finish(long)


def drawn(job):
    (image,) = job.json["images"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(image["b64_json"])))).astype(int)


def test_a_seed_gives_its_image_whatever_shares_the_batch(frontend):
    alone = frontend.json({"seed": 7, "num_inference_steps": 6})
    frontend.finish(alone)
    others = [frontend.json({"num_images": 3, "num_inference_steps": 5 + i}) for i in range(2)]
    frontend.call()
    together = frontend.json({"seed": 7, "num_inference_steps": 6})
    frontend.finish(together, *others)

    # In float32 a convolution adds up in another order for one image than for many: a grey level, now and then.
    assert np.abs(drawn(together) - drawn(alone)).max() <= 1


def test_a_client_that_leaves_frees_its_place_and_disturbs_nobody(frontend):
    leaving, staying = (frontend.json({"num_inference_steps": 5}) for _ in range(2))
    frontend.call()
    frontend.leave(leaving)
    frontend.call()

    assert len(frontend.handler.engine) == 1
    frontend.finish(staying)
    assert len(staying.json["images"]) == 1


def test_others_go_on_while_a_selfie_is_decoded(frontend, selfie, monkeypatch):
    decoded = Future()
    with monkeypatch.context() as patch:
        patch.setattr(frontend.handler.pipeline.pool, "aim", lambda *_args, **_more: decoded)
        waiting, other = frontend.raw(selfie), frontend.json({"num_inference_steps": 3})
        frontend.finish(other)
    assert (other.status, waiting.answers) == (200, 0)

    decoded.set_exception(InvalidInput("too_costly", "Too much.", field="image"))
    frontend.call()
    assert (waiting.status, waiting.error["code"]) == (413, "too_costly")


@pytest.mark.parametrize("problem", [None, InvalidInput("too_costly", "Too much.", field="image")])
def test_a_stream_shows_that_it_is_alive_while_its_selfie_is_decoded(frontend, selfie, monkeypatch, problem):
    aim = frontend.handler.pipeline.aim(selfie)
    monkeypatch.setattr(answers, "HEARTBEAT", 0.01)
    decoded = Future()
    with monkeypatch.context() as patch:
        patch.setattr(frontend.handler.pipeline.pool, "aim", lambda *_args, **_more: decoded)
        stream, whole = frontend.raw(selfie, accept=NDJSON), frontend.raw(selfie, accept="image/png")
        while stream.answers < 2:
            frontend.call()
    assert (stream.status, stream.body.strip(), whole.answers) == (200, b"", 0)

    if problem is None:
        decoded.set_result(aim)
    else:
        decoded.set_exception(problem)
    frontend.finish(stream, whole)
    assert stream.names[0] == ("started" if problem is None else "error")
    assert stream.names[-1] == ("end" if problem is None else "error")
    assert whole.status == (200 if problem is None else 413)


def test_who_leaves_before_his_selfie_is_decoded_is_forgotten(frontend, selfie, monkeypatch):
    decoded = Future()
    with monkeypatch.context() as patch:
        patch.setattr(frontend.handler.pipeline.pool, "aim", lambda *_args, **_more: decoded)
        leaving = frontend.raw(selfie)
        frontend.call()
    frontend.leave(leaving)
    frontend.call()
    assert decoded.cancelled()


def test_selfies_that_are_decoded_together_are_judged_together(frontend, selfie, monkeypatch):
    aim, judge_all = frontend.handler.pipeline.aim(selfie), frontend.handler.pipeline.judge_all
    judged = []
    decoded = [Future() for _ in range(3)]
    with monkeypatch.context() as patch:
        coming = iter(decoded)
        patch.setattr(frontend.handler.pipeline.pool, "aim", lambda *_args, **_more: next(coming))
        patch.setattr(
            frontend.handler.pipeline,
            "judge_all",
            lambda targets, rows: judged.append(len(targets)) or judge_all(targets, rows),
        )
        jobs = [frontend.raw(selfie), frontend.raw(selfie), frontend.form({"image": selfie, "mode": b"none"})]
        frontend.call()
        for each in decoded:
            each.set_result(aim)
        frontend.finish(*jobs)
    assert [job.status for job in jobs] == [200, 200, 200]
    assert judged == [2]


def test_selfies_that_cannot_be_judged_are_refused_and_nobody_else(frontend, selfie, monkeypatch, caplog):
    def fail(targets, rows):
        raise RuntimeError("secret")

    other = frontend.json({})
    with monkeypatch.context() as patch:
        patch.setattr(frontend.handler.pipeline, "judge_all", fail)
        job = frontend.raw(selfie)
        frontend.finish(job, other)
    assert (job.status, job.error["code"]) == (500, "internal")
    assert other.status == 200
    assert "secret" not in caplog.text


def test_selfies_that_are_being_decoded_count_as_open(start, selfie):
    frontend = start(capacity=1, tick_seconds=1e-9)
    first, second = frontend.raw(selfie), frontend.raw(selfie)
    frontend.answer(second)
    assert (second.status, second.error["code"]) == (503, "busy")
    frontend.finish(first)
    assert first.status == 200


def test_when_all_leave_their_state_is_dropped_and_who_returns_is_told(start):
    frontend = start(tick_seconds=1e-9, idle_seconds=0.1)
    jobs = [frontend.json({}, accept=accept) for accept in (NDJSON, "application/json")]
    frontend.handler.pipeline.pool.aim = lambda *_args, **_more: Future()
    jobs.append(frontend.raw(b"a selfie that takes its time"))
    frontend.call()
    del frontend.handler.pipeline.pool.aim
    handler = frontend.handler
    deadline = time.monotonic() + 30
    while len(handler.engine) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(handler.engine) == 0

    frontend.call()

    assert [job.ended for job in jobs] == [True, True, True]
    assert jobs[0].names[-1] == "error"
    assert jobs[1].error["code"] == jobs[2].error["code"] == jobs[0].events[-1].error.code == "unavailable"
    assert jobs[2].status == 503


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
    assert streaming.names == ["started", *["progress"] * 11, "error"]
    assert len(others[0].json["images"]) == 2
    assert others[1].names[-1] == "end"
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
