"""Events: their JSON, and the way there and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ddpm_api import (
    EndEvent,
    Error,
    ErrorEvent,
    Event,
    FacesEvent,
    ProgressEvent,
    QueuedEvent,
    StartedEvent,
    Target,
    Timing,
    WarningEvent,
    parse_event,
    to_ndjson,
    to_sse,
)

TARGET = {"faces": [{"box": [1, 2, 30, 40], "score": 0.9}], "face": 0, "box": [-1.5, 0, 35, 44]}
SHAPES: list[tuple[Event, dict[str, Any]]] = [
    (QueuedEvent(id="a", position=3), {"event": "queued", "id": "a", "position": 3}),
    (
        StartedEvent(id="a", model="m", version="1", seed=7, parameters={"eta": 0.5}),
        {"event": "started", "id": "a", "model": "m", "version": "1", "seed": 7, "parameters": {"eta": 0.5}}
        | {"target": None},
    ),
    (WarningEvent(code="c", message="m"), {"event": "warning", "code": "c", "message": "m"}),
    (
        ProgressEvent(step=7, total_steps=18, eta_seconds=1.3),
        {"event": "progress", "step": 7, "total_steps": 18, "eta_seconds": 1.3},
    ),
    (
        ErrorEvent(error=Error(code="busy", message="Full.")),
        {
            "event": "error",
            "error": {"code": "busy", "message": "Full.", "field": None, "given": None, "allowed": None},
        },
    ),
    (
        EndEvent(timing=Timing(queue_seconds=0.5, seconds=2, calls=18)),
        {"event": "end", "timing": {"queue_seconds": 0.5, "seconds": 2, "calls": 18}},
    ),
]


@pytest.mark.parametrize(("event", "shape"), SHAPES, ids=lambda value: getattr(value, "event", ""))
def test_an_event_has_the_shape_of_the_contract(event: Event, shape: dict[str, Any]) -> None:
    line = to_ndjson(event)
    assert json.loads(line) == shape
    assert next(iter(json.loads(line))) == "event"


def test_the_target_comes_with_its_picture_only_if_asked(target: Target) -> None:
    faces = FacesEvent(id="a", model="m", version="1", target=target)
    assert json.loads(to_ndjson(faces))["target"] == TARGET
    asked = target.model_copy(update={"b64_json": "aGk="})
    assert json.loads(to_ndjson(faces.model_copy(update={"target": asked})))["target"] == TARGET | {"b64_json": "aGk="}


def test_every_event_comes_back_from_its_line(story: Callable[..., list[Event]]) -> None:
    events = [*story("red", "blue"), *(event for event, _ in SHAPES)]
    assert [parse_event(to_ndjson(event)) for event in events] == events


def test_an_event_is_one_line_and_one_server_sent_event(story: Callable[..., list[Event]]) -> None:
    for event in [*story("red"), WarningEvent(code="c", message="two\nlines\r\n\u2028")]:
        assert to_ndjson(event).count(b"\n") == 1
        name, data, *rest = to_sse(event).split(b"\n")
        assert name == b"event: " + event.event.encode()
        assert data.startswith(b"data: ")
        assert json.loads(data[6:]) == json.loads(to_ndjson(event))
        assert rest == [b"", b""]


def test_a_field_of_a_newer_server_is_passed_over() -> None:
    assert parse_event('{"event": "queued", "id": "a", "position": 1, "new": 2}') == QueuedEvent(id="a", position=1)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"event": "dance"}',
        '{"event": "queued"}',
        '{"event": "image", "b64_json": "SECRET"}',
    ],
)
def test_another_line_is_no_event_and_is_not_repeated(line: str) -> None:
    with pytest.raises(ValueError, match="not an event") as caught:
        parse_event(line)
    assert "SECRET" not in repr(caught.value)
    assert caught.value.__context__ is None


def test_an_endless_estimate_is_no_event() -> None:
    with pytest.raises(ValueError, match="finite"):
        ProgressEvent(step=1, total_steps=2, eta_seconds=float("inf"))
