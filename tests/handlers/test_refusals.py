"""What the handler refuses, and that nobody else notices."""

from __future__ import annotations

import io
import math
import zlib

import pytest
from PIL import Image


def picture(size=(64, 64), kind="PNG") -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(file, kind)
    return file.getvalue()


def claimed_huge() -> bytes:
    """A small PNG whose header says 65535 × 65535."""
    file = picture()
    header = b"IHDR" + b"\0\0\xff\xff" * 2 + file[24:29]
    return file[:12] + header + zlib.crc32(header).to_bytes(4, "big") + file[33:]


NDJSON = "application/x-ndjson"

BAD = [
    ("raw", b"", 422, "empty_image", "image"),
    ("raw", b"GIF8 but not an image", 415, "not_an_image", "image"),
    ("raw", picture()[:1500], 422, "truncated_image", "image"),
    ("raw", picture((8, 8)), 422, "too_small", "image"),
    ("raw", claimed_huge(), 413, "too_many_pixels", "image"),
    ("json", b"{", 400, "malformed_json", None),
    ("json", b"[" * 100_000, 400, "malformed_json", None),
    ("json", b"\xff\xfe\xfa", 400, "malformed_json", None),
    ("json", b"[" + b"0," * 100_000 + b"0]", 413, "too_large", "body"),
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
    frontend.answer(refused)

    assert refused.ended
    assert (refused.status, refused.content_type) == (status, "application/json")
    assert refused.error["code"] == (code or refused.error["code"])
    assert (refused.error["field"], bool(refused.error["message"])) == (field, True)
    frontend.finish(running)
    assert running.status == 200


def test_what_another_worker_had_begun_is_ended(frontend, start):
    job = frontend.json({"num_inference_steps": 9}, accept=NDJSON)
    frontend.call()
    frontend.leave(job)
    job.moved = True
    next_worker = start()
    next_worker.jobs.append(job)
    next_worker.finish(job)
    assert next_worker.handler._answers == {}


def test_what_cannot_be_accepted_is_named(frontend):
    job = frontend.json({}, accept="video/mp4")
    frontend.call()

    assert (job.status, job.error["field"], job.error["given"]) == (406, "Accept", "video/mp4")


def test_an_error_that_nobody_foresaw_is_told_without_its_words(frontend, selfie, monkeypatch, caplog):
    def broken(*_args, **_more):
        raise ValueError(selfie[:50].hex())

    with monkeypatch.context() as patch:
        patch.setattr(frontend.handler.pipeline.pool, "aim", broken)
        job = frontend.raw(selfie)
        frontend.call()

    assert (job.status, job.error["code"]) == (500, "internal")
    assert "ValueError in" in caplog.text
    assert selfie[:8].hex() not in caplog.text + job.body.decode()
