"""Streams: what is told while pictures are made, and in which order."""

from __future__ import annotations

import io

from PIL import Image

from ddpm_api import ImageEvent, PreviewEvent, ProgressEvent
from handlers import answer

NDJSON = "application/x-ndjson"


def test_a_stream_that_prefers_the_least_leaves_the_steps_out(frontend, selfie):
    job = frontend.form({"image": selfie, "num_inference_steps": b"4"}, accept=NDJSON, prefer="return=minimal")
    frontend.finish(job)

    assert job.names == ["started", *["image"] * 5, "end"]


def test_a_stream_tells_everything_in_order(frontend, selfie):
    job = frontend.form(
        {"image": selfie, "num_images": b"2", "num_inference_steps": b"4", "preview_every": b"2"}, accept=NDJSON
    )
    frontend.finish(job)

    progress = ["progress"] * 2
    assert job.names == ["started", *progress, "preview", "preview", *progress, "image", "image", "end"]
    assert [event.step for event in job.events if isinstance(event, ProgressEvent)] == [1, 2, 3, 4]
    assert {event.content_type for event in job.events if isinstance(event, PreviewEvent)} == {"image/jpeg"}
    assert [event.index for event in job.events if isinstance(event, ImageEvent)] == [0, 1]
    assert all(chunk for chunk in job.chunks)


def test_warnings_come_before_the_start(frontend):
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(file, "PNG")
    job = frontend.raw(file.getvalue(), accept=NDJSON)
    frontend.finish(job)

    assert job.names[:3] == ["warning", "warning", "started"]  # there is no face, and so none to follow
    assert job.events[0].code == "no_face"


def test_one_who_waits_is_told_the_position(start):
    frontend = start(tick_seconds=1e-9)
    frontend.handler.engine.max_rows = 1
    first = frontend.json({"num_inference_steps": 3}, accept=NDJSON)
    frontend.call()
    second = frontend.json({"num_inference_steps": 30}, accept=NDJSON)
    frontend.call()

    assert second.names == ["queued"]
    assert second.events[0].position == 1
    frontend.finish(first, second)
    assert second.names[1] == "started"


def test_a_silent_stream_shows_that_it_is_alive(start, monkeypatch):
    frontend = start(tick_seconds=1e-9)
    frontend.handler.engine.max_rows = 1
    busy = frontend.json({"num_inference_steps": 20})
    frontend.call()
    waiting = frontend.json({"num_inference_steps": 900}, accept="text/event-stream")
    frontend.call()
    frontend.call()
    assert waiting.chunks[1] == b""

    monkeypatch.setattr(answer, "HEARTBEAT", 0.0)  # from now on it has been silent for long enough
    frontend.call()

    assert waiting.chunks[2] == b": heartbeat\n\n"
    assert b"heartbeat" not in busy.body
