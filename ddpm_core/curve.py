"""How much the faces resemble the selfie: one position on one curve of low-pass guidance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

APART = 0.5
"""How far details stay apart: of LFW's photographs 1 % are nearer than 0.48 to the nearest other of their person."""


@dataclass(frozen=True)
class CurvePoint:
    """Low-pass guidance at one resemblance; σ normalised to a 256 px side.

    Attributes:
        sigma_start: noise that the selfie is started from.
        sigma_stop: guidance ends where σ falls below it.
        grid: cells a side of the coarse structure that is pulled.
        weight: strength at the start.
        chroma: strength of the colour part.
        calls: default number of network calls, of a model that takes the usual 25 from noise alone.
        apart: least distance of the detail from the selfie's, 1 − correlation.
    """

    sigma_start: float
    sigma_stop: float
    grid: float
    weight: float
    chroma: float
    calls: float
    apart: float = APART


# At equal distances. Chosen by looking at blind sheets, beside `ddpm evaluate likeness` (docs/likeness.md): before
# `celebrity` sex and age change; behind `likeness` more is broken, for little is left to the model.
_CURVE = (
    CurvePoint(60.0, 10.0, 4, 0.3, 0.3, 16),
    CurvePoint(6.0, 0.5, 16, 1.0, 1.0, 10),
    CurvePoint(5.0, 0.5, 22, 1.0, 1.0, 10),
    CurvePoint(4.0, 0.4, 28, 1.0, 1.0, 10),
    CurvePoint(2.0, 0.35, 40, 1.0, 1.0, 7, apart=0.0),
)


def curve(resemblance: float) -> CurvePoint:
    """Give the curve's point at `resemblance` 0..1: piecewise linear, in the logarithm of σ and grid."""
    knots = np.linspace(0, 1, len(_CURVE))

    def at(name: str, *, log: bool = False) -> float:
        values = [getattr(point, name) for point in _CURVE]
        if log:
            return math.exp(np.interp(resemblance, knots, np.log(values)))
        return float(np.interp(resemblance, knots, values))

    return CurvePoint(
        sigma_start=at("sigma_start", log=True),
        sigma_stop=at("sigma_stop", log=True),
        grid=at("grid", log=True),
        weight=at("weight"),
        chroma=at("chroma"),
        calls=at("calls"),
        apart=at("apart"),
    )
