"""From what is asked for and a bundle to a plan: the table, the start and the target of every image.

How much the faces resemble the selfie is one position on one curve (METHODS §2); a mode only names a point of it.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from ddpm_core.bundle import Bundle
from ddpm_core.errors import InvalidInput
from ddpm_core.gate import Judgement
from ddpm_core.pixels import Pixels, to_tensor
from ddpm_core.sampling import MAX_SEED, Sampler, SampleState, StepTable, build, ddim_raw, noise
from ddpm_core.schedule import NoiseSchedule
from ddpm_core.tone import pull

E = TypeVar("E", bound=StrEnum)

MAX_IMAGES = 16
APART = 0.5
"""How far details stay apart: of LFW's photographs 1 % are nearer than 0.48 to the nearest other of their person."""


class Mode(StrEnum):
    """How the selfie guides."""

    AUTO = "auto"
    FAITHFUL = "faithful"
    LIKENESS = "likeness"
    CELEBRITY = "celebrity"
    PIXEL = "pixel"
    NONE = "none"


@dataclass(frozen=True)
class CurvePoint:
    """Low-pass guidance at one resemblance; σ normalised to a 256 px side.

    Attributes:
        sigma_start: noise that the selfie is started from.
        sigma_stop: guidance ends where σ falls below it.
        grid: cells a side of the coarse structure that is pulled.
        weight: strength at the start.
        chroma: strength of the colour part.
        calls: default number of network calls.
        apart: least distance of the detail from the selfie's, 1 − correlation.
    """

    sigma_start: float
    sigma_stop: float
    grid: float
    weight: float
    chroma: float
    calls: float
    apart: float = APART


# At equal distances. Nearer to the noise than METHODS' points, which gave the photograph again: chosen by
# `ddpm evaluate likeness` and by looking (CONTRIBUTING).
_CURVE = (
    CurvePoint(60.0, 10.0, 4, 0.3, 0.3, 11),
    CurvePoint(36.0, 5.0, 6, 0.5, 0.5, 10),
    CurvePoint(14.0, 2.0, 12, 0.6, 1.0, 9),
    CurvePoint(10.0, 2.0, 16, 0.65, 1.0, 8),
    CurvePoint(2.0, 0.4, 40, 0.9, 1.0, 7, apart=0.0),
)
RESEMBLANCE = {Mode.CELEBRITY: 0.25, Mode.LIKENESS: 0.5, Mode.FAITHFUL: 0.75}
"""The position on the curve that each mode names."""
_FACELESS = 0.0
"""The position that `celebrity` takes where there is no face to follow."""

_UNJUDGED = Judgement()

PIXEL_CALLS = 40
PIXEL_LOSS_SCALE = 50.0


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


@dataclass(frozen=True, eq=False)
class Plan:
    """All that will happen for one request, before any of it does.

    Attributes:
        table: the sampler's numbers, the same for all its images.
        seeds: one an image.
        shape: (C, H, W) of an image.
        target: (C, H, W) in [−1, 1]; None when unguided.
        parameters: what was asked for, defaults filled in; for the answer and inside the PNG.
        warnings: (code, message) of what was decided for the user, or may disappoint.
    """

    table: StepTable
    seeds: tuple[int, ...]
    shape: tuple[int, int, int]
    target: Tensor | None
    parameters: dict[str, Any]
    warnings: tuple[tuple[str, str], ...] = ()

    @property
    def calls(self) -> int:
        """Network calls of one image."""
        return len(self.table)

    @property
    def work(self) -> int:
        """Network calls of all images."""
        return self.calls * len(self.seeds)

    def start(self, schedule: NoiseSchedule, index: int) -> SampleState:
        """Give image `index` before its first call: noise, or the noised target (SDEdit, Meng et al. 2022)."""
        seed = self.seeds[index]
        z = noise(seed, 0, self.shape)
        if self.target is None or self.table.pixel.any():  # pixel guidance starts from noise alone
            return SampleState(self.table, seed, z, target=self.target)
        a = float(schedule.alpha_bar[self.table.levels[0]])
        return SampleState(self.table, seed, math.sqrt(a) * self.target + math.sqrt(1 - a) * z, target=self.target)


def make_plan(
    bundle: Bundle,
    target: Pixels | None = None,
    *,
    num_images: int = 1,
    mode: Mode | str | None = None,
    resemblance: float | None = None,
    point: CurvePoint | None = None,
    sampler: Sampler | str | None = None,
    num_inference_steps: int | None = None,
    eta: float = 0.0,
    guidance_loss_scale: float = PIXEL_LOSS_SCALE,
    seed: int = -1,
    judgement: Judgement = _UNJUDGED,
) -> Plan:
    """Plan one request.

    Args:
        bundle: the model.
        target: (H, H, 3) uint8, the aligned selfie at the model's size; None for unguided images.
        num_images: 1..16; image i uses seed + i, modulo 2³².
        mode: `auto` with a target and `none` without, unless said.
        resemblance: 0..1; the mode's own unless said. Not with `pixel` and `none`.
        point: low-pass guidance anywhere, in place of `resemblance`; for measurements.
        sampler: `dpmpp_2m` unless said; `pixel` is DDIM.
        num_inference_steps: network calls, 1..start level; by mode unless said.
        eta: 0..1, for `ddim`.
        guidance_loss_scale: ≥ 0, for `pixel`.
        seed: 0..2³²−1, or −1 for a random one.
        judgement: what `Pipeline.judge` said of the target; `auto` chooses by it.

    Raises:
        InvalidInput: a value outside its range, or a mode that needs a target and has none.
    """
    manifest, schedule = bundle.manifest, bundle.schedule
    mode = _member(Mode, mode, "mode") if mode else (Mode.NONE if target is None else Mode.AUTO)
    if mode is not Mode.NONE and target is None:
        raise InvalidInput(
            "image_required", f"Mode {mode} needs an image.", field="mode", given=str(mode), allowed="none"
        )
    _within("num_images", num_images, 1, MAX_IMAGES)
    _within("seed", seed, -1, MAX_SEED)
    _within("eta", eta, 0, 1)
    _within("guidance_loss_scale", guidance_loss_scale, 0, 1000)
    if resemblance is not None:
        _within("resemblance", resemblance, 0, 1)
        if mode in (Mode.NONE, Mode.PIXEL):
            raise InvalidInput(
                "conflict",
                f"resemblance has no meaning in mode {mode}.",
                field="resemblance",
                given=resemblance,
                allowed="auto, faithful, likeness, celebrity",
            )
    if point is not None and resemblance is not None:
        raise ValueError("resemblance and point exclude each other")
    if target is not None and target.shape != (manifest.image_size, manifest.image_size, 3):
        raise ValueError(f"target {target.shape} is not {manifest.image_size} px square with 3 channels")
    if sampler is not None:
        sampler = _member(Sampler, sampler, "sampler")
    warnings: tuple[tuple[str, str], ...] = ()
    y = to_tensor(target, manifest.channels) if target is not None and mode is not Mode.NONE else None
    if y is not None:
        mode, warnings = _settle(mode, resemblance, judgement)
        is_faceless = mode is Mode.CELEBRITY and resemblance is None and judgement.has_face is False
        if is_faceless:
            resemblance = _FACELESS
        tone = manifest.statistics.tone
        if tone is not None and mode is not Mode.PIXEL and (is_faceless or judgement.is_strange):
            y = pull(y, tone)
    first = secrets.randbelow(MAX_SEED + 1) if seed == -1 else seed
    seeds = tuple((first + i) % (MAX_SEED + 1) for i in range(num_images))
    parameters: dict[str, Any] = {"num_images": num_images, "mode": str(mode), "seed": first}

    if mode is Mode.PIXEL:
        if sampler not in (None, Sampler.DDIM):
            raise InvalidInput(
                "conflict", "Mode pixel samples with ddim only.", field="sampler", given=str(sampler), allowed="ddim"
            )
        table = _pixel_table(bundle, _or(num_inference_steps, PIXEL_CALLS), guidance_loss_scale)
        parameters |= {"sampler": str(Sampler.DDIM), "eta": 0.0, "guidance_loss_scale": guidance_loss_scale}
    else:
        sampler = sampler or Sampler.DPMPP_2M
        if mode is Mode.NONE:
            levels = schedule.karras(
                schedule.num_levels, _or(num_inference_steps, manifest.defaults.num_inference_steps)
            )
            table = build(sampler, schedule, levels, eta=eta)
        else:
            if point is None:
                resemblance = RESEMBLANCE.get(mode, RESEMBLANCE[Mode.LIKENESS]) if resemblance is None else resemblance
                point = curve(resemblance)
                parameters["resemblance"] = resemblance
            table = _low_pass_table(bundle, point, sampler, num_inference_steps, eta)
        parameters |= {"sampler": str(sampler), "eta": eta}
    parameters["num_inference_steps"] = len(table)
    return Plan(table, seeds, bundle.shape, y, parameters, warnings)


def _settle(mode: Mode, resemblance: float | None, judgement: Judgement) -> tuple[Mode, tuple[tuple[str, str], ...]]:
    """Choose for `auto`, unless a resemblance says it already; say why, and what may disappoint."""
    chosen, does = mode, f"mode {mode} is kept as asked for."
    if resemblance is not None:
        does = f"resemblance {resemblance:g} is kept as asked for."
    elif mode is Mode.AUTO:
        chosen = Mode.CELEBRITY if judgement.is_strange or judgement.has_face is False else Mode.LIKENESS
        does = f"mode {chosen} is used, which follows it less closely."
    if judgement.is_strange:
        return chosen, (("strange_target", f"The picture is unlike those that the model was made for: {does}"),)
    if judgement.has_face is False and mode is Mode.AUTO and chosen is not mode:
        return chosen, (("no_face_to_follow", f"There is no face to follow: {does}"),)
    return chosen, ()


def _low_pass_table(bundle: Bundle, point: CurvePoint, sampler: Sampler, calls: int | None, eta: float) -> StepTable:
    """Start at σ_start, pull the coarse structure while σ > σ_stop, with w falling in ln σ (METHODS §2)."""
    size, schedule = bundle.manifest.image_size, bundle.schedule
    start = schedule.level_at(point.sigma_start, size)
    table = build(sampler, schedule, schedule.karras(start, _or(calls, min(round(point.calls), start))), eta=eta)
    sigma = schedule.sigma_256(size)[table.levels[:-1]]
    fade = np.log(sigma / point.sigma_stop) / math.log(point.sigma_start / point.sigma_stop)
    n = len(table)
    return replace(
        table,
        weight=point.weight * fade.clip(0, 1),
        grid=np.full(n, float(min(round(point.grid), size))),
        chroma=np.full(n, point.chroma),
        apart=np.full(n, point.apart),
    )


def _pixel_table(bundle: Bundle, calls: int, scale: float) -> StepTable:
    """Make the table of the Hugging Face course's loop: DDIM, leading spacing, from pure noise (METHODS §2)."""
    table = ddim_raw(bundle.schedule, bundle.schedule.leading(calls))
    a = bundle.schedule.alpha_bar[table.levels[:-1]]
    return replace(table, pixel=scale / (math.prod(bundle.shape) * a))


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _within(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # NaN fails too
        raise InvalidInput(
            "out_of_range", f"{field} must be in {low}..{high}.", field=field, given=value, allowed=f"{low}..{high}"
        )


def _member(kind: type[E], value: str, field: str) -> E:
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(kind)
        raise InvalidInput(
            "unknown_value", f"{field} must be one of: {allowed}.", field=field, given=value, allowed=allowed
        ) from None
