"""What options can be, where the core decides it: a command line is read before the core is imported."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import typer

YUNET = "face_detection_yunet_20?????.onnx"
"""The face detector's files, as OpenCV names them."""


class Domain(StrEnum):
    """What a model's pictures show."""

    HUMAN_FACE = "human_face"
    CAT_FACE = "cat_face"
    ANY = "any"


class PredictionType(StrEnum):
    """What the network was trained to predict."""

    EPSILON = "epsilon"
    V_PREDICTION = "v_prediction"
    SAMPLE = "sample"


class Schedule(StrEnum):
    """The noise schedule, with 1000 levels where nothing else is said."""

    LINEAR = "linear"
    COSINE = "cosine"


def between(low: float, high: float, *, help: str, **more: Any) -> Any:
    """Make an option for a number with two limits; one outside is answered with both."""

    def check(value: float | None) -> float | None:
        if value is not None and not low <= value <= high:
            raise typer.BadParameter(f"{value} is not in {low}..{high}.")
        return value

    return typer.Option(help=f"{low}..{high}: {help}", callback=check, **more)
