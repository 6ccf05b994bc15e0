"""The result is what the events add up to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ddpm_api import (
    ApiError,
    EndEvent,
    Error,
    ErrorEvent,
    Event,
    FacesEvent,
    ResultBuilder,
    Target,
    Timing,
    parameters_in,
)

Story = Callable[..., list[Event]]


def built(events: list[Event]) -> ResultBuilder:
    """A builder that has taken the events."""
    builder = ResultBuilder()
    for event in events:
        assert not builder.done
        builder.feed(event)
    return builder


def test_a_complete_stream_is_a_result_in_the_shape_of_the_contract(story: Story) -> None:
    result = json.loads(built(story("red", "blue")).result().to_json())
    images = result.pop("images")
    assert abs(result.pop("created") - time.time()) < 60
    assert result == {
        "id": "r1",
        "model": "faces-64",
        "version": "1.0",
        "target": {"faces": [{"box": [1, 2, 30, 40], "score": 0.9}], "face": 0, "box": [-1.5, 0, 35, 44]},
        "parameters": {"mode": "auto", "eta": 0.5},
        "warnings": [{"code": "no_face", "message": "No face was found."}],
        "timing": {"queue_seconds": 0.1, "seconds": 0.5, "calls": 2},
    }
    assert [(image["index"], image["seed"]) for image in images] == [(0, 100), (1, 101)]
    assert set(images[0]) == {"index", "seed", "resemblance_score", "width", "height", "content_type", "b64_json"}


def test_the_bytes_of_a_picture_are_at_hand(story: Story, picture_file: Callable[..., bytes]) -> None:
    result = built(story("red", "blue")).result()
    assert [image.data for image in result.images] == [picture_file("red"), picture_file("blue")]


@pytest.mark.parametrize("came", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("saved", ["png", "jpeg", "webp"])
def test_what_is_saved_of_a_picture_keeps_its_mark_and_parameters(
    story: Story, tmp_path: Path, came: str, saved: str
) -> None:
    picture = built(story("red", output_format=came)).result().images[0].image
    picture.resize((16, 16)).save(tmp_path / f"large.{saved}")
    with Image.open(tmp_path / f"large.{saved}") as large:
        assert (large.format, large.size) == (saved.upper(), (16, 16))
        assert b"trainedAlgorithmicMedia" in large.info["xmp"]
        assert json.loads(parameters_in(large)) == {"colour": "red"}


def test_the_faces_found_are_a_result_without_pictures(target: Target) -> None:
    faces = FacesEvent(id="r2", model="m", version="1", target=target)
    result = built([faces, EndEvent(timing=Timing(queue_seconds=0, seconds=0.1, calls=0))]).result()
    assert (result.images, result.target, result.parameters) == ([], target, {})


def test_a_stream_without_its_end_has_failed(story: Story) -> None:
    events = story("red")
    for length in range(len(events)):
        builder = built(events[:length])
        assert not builder.done
        with pytest.raises(ApiError) as caught:
            builder.result()
        assert caught.value.error.code == "unfinished"


def test_a_stream_with_an_error_is_that_error(story: Story) -> None:
    error = Error(code="out_of_memory", message="Too little memory.")
    builder = built([*story("red")[:-1], ErrorEvent(error=error)])
    assert builder.done
    with pytest.raises(ApiError, match="Too little memory") as caught:
        builder.result()
    assert caught.value.error == error
