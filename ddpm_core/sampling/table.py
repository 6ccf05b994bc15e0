"""A sampler is a table of numbers: one row per network call (docs/methods.md).

Every sampler here is linear in the state, the clean predictions and fresh noise, so that one tick can advance rows
of different samplers, step counts and noise levels together, each by its own numbers:

    x' = A·x + B0·x0 + B1·x0_prev + R·r + D·z + √ᾱ'·Δ

with r the raw predicted clean image, x0 = clip(r, −1, 1), z fresh noise, and Δ the displacement by guidance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ddpm_core.schedule import NoiseSchedule

Column = NDArray[np.float64]


class Sampler(StrEnum):
    """The samplers, by the names their papers gave them."""

    DDPM = "ddpm"
    DDIM = "ddim"
    DPMPP_2M = "dpmpp_2m"
    LCM = "lcm"


@dataclass(frozen=True, eq=False)
class StepTable:
    """One sampler at one step count with its guidance: n rows of numbers, float64. Pure data.

    Attributes:
        levels: (n+1,) noise levels, from the start down to 0; call k goes from levels[k] to levels[k+1].
        A, B0, B1, R, D: (n,) coefficients of x, x0, x0_prev, r and z.
        shift: (n,) √ᾱ', the coefficient of Δ.
        weight, grid, chroma: (n,) low-pass guidance: strength (0 = none), cells a side, colour strength.
        apart: (n,) least distance of the detail from the target's, 1 − correlation (0 = none).
        spared: (n,) how far eyes, nose and mouth are left as they are by it, 0..1 (0 = not).
        guide: (n,) autoguidance: w − 1, how far r is moved from the guide's prediction (0 = none).
        pixel: (n,) pixel guidance: length of the step along the sign of the error (0 = none).
        antithetic: (n,) where the prediction is the mean of x's and of its twin's, which holds the opposite noise: the
            share of noise in x, √(1−ᾱ) (0 = no twin). Not for samplers that keep noise of calls before.
    """

    levels: NDArray[np.int64]
    A: Column
    B0: Column
    B1: Column
    R: Column
    D: Column
    shift: Column
    weight: Column = field(default_factory=lambda: np.zeros(0))
    grid: Column = field(default_factory=lambda: np.zeros(0))
    chroma: Column = field(default_factory=lambda: np.zeros(0))
    apart: Column = field(default_factory=lambda: np.zeros(0))
    spared: Column = field(default_factory=lambda: np.zeros(0))
    guide: Column = field(default_factory=lambda: np.zeros(0))
    pixel: Column = field(default_factory=lambda: np.zeros(0))
    antithetic: Column = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        n = len(self.levels) - 1
        for name in COLUMNS:
            column = getattr(self, name)
            if len(column) == 0:  # a column nobody set does nothing
                column = np.zeros(n)
                object.__setattr__(self, name, column)
            if column.shape != (n,) or not np.isfinite(column).all():
                raise ValueError(f"column {name} must hold {n} finite numbers")
            column.setflags(write=False)
        self.levels.setflags(write=False)

    def __len__(self) -> int:
        """Give the number of network calls."""
        return len(self.levels) - 1

    @cached_property
    def noiseless(self) -> NDArray[np.bool_]:
        """Say of each call, (n,), whether it is shown a picture without noise, as the row before leaves it."""
        noiseless: NDArray[np.bool_] = np.append(False, (self.A == 0) & (self.D == 0))[:-1]
        return noiseless

    def row(self, position: int) -> Column:
        """Give the row of call `position`: (len(COLUMNS),) numbers in the order of COLUMNS."""
        row: Column = self._rows[position]
        return row

    @cached_property
    def _rows(self) -> Column:
        return np.stack([getattr(self, name) for name in COLUMNS], axis=1)

    def __str__(self) -> str:
        """Print the table, a line a call."""
        head = f"{'level':>6}{'next':>6}" + "".join(f"{name:>11}" for name in COLUMNS)
        lines = (
            f"{self.levels[k]:>6}{self.levels[k + 1]:>6}" + "".join(f"{value:>11.5f}" for value in self.row(k))
            for k in range(len(self))
        )
        return "\n".join([head, *lines])


COLUMNS = tuple(column.name for column in fields(StepTable) if column.name != "levels")


def ddim(schedule: NoiseSchedule, levels: Sequence[int], eta: float = 0.0, *, fixed_large: bool = False) -> StepTable:
    """Make the table of DDIM (Song et al. 2021, eq. 12 and 16), ε re-derived from the clipped x0.

    `eta` = 1 is DDPM ancestral sampling (`ddpm`), also when levels are skipped; 0 is deterministic.
    `fixed_large` takes the noise of β instead of the posterior variance (with `eta` = 1).
    """
    a, a_next = _pairs(schedule, levels)
    s = eta * np.sqrt((1 - a_next) / (1 - a) * (1 - a / a_next))
    A = np.sqrt(1 - a_next - s**2) / np.sqrt(1 - a)
    D = np.where(a_next < 1, np.sqrt(1 - a / a_next), 0.0) if fixed_large else s
    zero = np.zeros_like(a)
    return StepTable(
        np.asarray(levels), A=A, B0=np.sqrt(a_next) - A * np.sqrt(a), B1=zero, R=zero, D=D, shift=np.sqrt(a_next)
    )


def ddpm(schedule: NoiseSchedule, levels: Sequence[int], *, fixed_large: bool = False) -> StepTable:
    """Make the table of ancestral sampling (Ho et al. 2020, eq. 7), also for skipped levels."""
    return ddim(schedule, levels, eta=1.0, fixed_large=fixed_large)


def ddim_raw(schedule: NoiseSchedule, levels: Sequence[int]) -> StepTable:
    """Make the table of DDIM, η = 0, with the network's own ε (from r, unclipped), as pixel guidance wants."""
    plain = ddim(schedule, levels)
    a, a_next = _pairs(schedule, levels)
    return replace(plain, B0=np.sqrt(a_next), R=-plain.A * np.sqrt(a))


def dpmpp_2m(schedule: NoiseSchedule, levels: Sequence[int]) -> StepTable:
    """Make the table of DPM-Solver++(2M) (Lu et al. 2022, algorithm 2); the first and last calls are first-order."""
    a, a_next = _pairs(schedule, levels)
    with np.errstate(divide="ignore"):
        log_snr = 0.5 * np.log(a / (1 - a))
        h = 0.5 * np.log(a_next / (1 - a_next)) - log_snr  # ∞ in the last row, where a' = 1
    sigma_ratio = np.sqrt((1 - a_next) / a_next) / np.sqrt((1 - a) / a)  # e^{−h}
    base = -np.sqrt(a_next) * (sigma_ratio - 1)
    B1 = np.zeros_like(a)
    B1[1:-1] = -base[1:-1] * h[1:-1] / (2 * h[:-2])  # −base/(2q), q = h_prev/h
    zero = np.zeros_like(a)
    return StepTable(
        np.asarray(levels),
        A=np.sqrt((1 - a_next) / (1 - a)),
        B0=base - B1,
        B1=B1,
        R=zero,
        D=zero,
        shift=np.sqrt(a_next),
    )


def lcm(schedule: NoiseSchedule, levels: Sequence[int]) -> StepTable:
    """Make the table of multistep consistency sampling (Song et al. 2023, algorithm 1; Luo et al. 2023).

    Every call begins anew, with the last clean prediction and fresh noise, so that no fault of a call before stays in
    the noise. It is for networks that make a finished picture in one call: of others, which give the mean of all that
    may be meant, every call would take detail away.
    """
    _, a_next = _pairs(schedule, levels)
    zero = np.zeros_like(a_next)
    kept = np.sqrt(a_next)
    return StepTable(np.asarray(levels), A=zero, B0=kept, B1=zero, R=zero, D=np.sqrt(1 - a_next), shift=kept)


def _pairs(schedule: NoiseSchedule, levels: Sequence[int]) -> tuple[Column, Column]:
    """Give ᾱ at the start and at the end of every call; refuse levels that do not fall to 0."""
    if len(levels) < 2 or levels[-1] != 0 or any(b >= a for a, b in pairwise(levels)):
        raise ValueError(f"levels must fall strictly to 0, not {list(levels)}")
    a = schedule.alpha_bar[np.asarray(levels)]
    return a[:-1], a[1:]


def build(sampler: Sampler, schedule: NoiseSchedule, levels: Sequence[int], *, eta: float = 0.0) -> StepTable:
    """Make the table of a sampler by its name; `eta` belongs to DDIM alone."""
    makers: Mapping[Sampler, Callable[[], StepTable]] = {
        Sampler.DDPM: lambda: ddpm(
            schedule, levels, fixed_large=str(schedule.config.get("variance_type")).startswith("fixed_large")
        ),
        Sampler.DDIM: lambda: ddim(schedule, levels, eta),
        Sampler.DPMPP_2M: lambda: dpmpp_2m(schedule, levels),
        Sampler.LCM: lambda: lcm(schedule, levels),
    }
    return makers[sampler]()
