"""From what is asked for and a bundle to a plan: the table, the start and the target of every image.

How much the faces resemble the selfie is one position on one curve (`curve.py`); a mode only names a point of it.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm_core.bundle import Bundle, SamplingDefaults
from ddpm_core.curve import CurvePoint, curve
from ddpm_core.errors import InvalidInput
from ddpm_core.gate import Judgement
from ddpm_core.pixels import Pixels, to_tensor
from ddpm_core.sampling import MAX_SEED, Sampler, SampleState, StepTable, build, ddim_raw, noise_key, noises
from ddpm_core.schedule import REFERENCE_SIDE
from ddpm_core.tone import pull

E = TypeVar("E", bound=StrEnum)

MAX_IMAGES = 16
RANGES = {
    "num_images": (1, MAX_IMAGES),
    "seed": (-1, MAX_SEED),
    "resemblance": (0, 1),
    "eta": (0, 1),
    "guidance_loss_scale": (0, 1000),
    "guide": (1, 3),
}
"""What may be asked for, both ends included."""


class Mode(StrEnum):
    """How the selfie guides."""

    AUTO = "auto"
    FAITHFUL = "faithful"
    LIKENESS = "likeness"
    CELEBRITY = "celebrity"
    PIXEL = "pixel"
    NONE = "none"


RESEMBLANCE = {Mode.CELEBRITY: 0.25, Mode.LIKENESS: 0.5, Mode.FAITHFUL: 0.75}
"""The position on the curve that each mode names."""
_FACELESS = 0.0
"""The position that `celebrity` takes where there is no face to follow."""

_UNJUDGED = Judgement()

_SPARED = 0.7
"""How far eyes, nose and mouth stay what they are where detail is kept apart: theirs is then mostly 0.2 or more from
the selfie's, and 1 % of different photographs of one person are nearer than 0.17 (docs/decisions.md)."""

_LCM_LEAST = 0.7
"""σ₂₅₆ of `lcm`'s last call: with less noise a network only smooths what it has made (docs/likeness.md)."""

_PAIRED_BELOW = 5.0
"""σ₂₅₆ below which calls of `lcm` are made in pairs of opposite noise, all but the first and the last: what noise alone
would make of a face cancels out (docs/decisions.md). With more noise it is what makes one face differ from the next. A
network that has learnt these means is asked once, without noise."""

_PLACES = 21
"""Positions on the curve that a form's slider has."""

PIXEL_CALLS = 40
PIXEL_LOSS_SCALE = 50.0


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
        start_alpha_bar: ᾱ of the target in the start, 0..1; 0 starts from noise alone.
    """

    table: StepTable
    seeds: tuple[int, ...]
    shape: tuple[int, int, int]
    target: Tensor | None
    parameters: dict[str, Any]
    warnings: tuple[tuple[str, str], ...] = ()
    start_alpha_bar: float = 0.0

    @property
    def calls(self) -> int:
        """Network calls of one image."""
        return len(self.table)

    @property
    def work(self) -> int:
        """Network calls of all images."""
        return self.calls * len(self.seeds)

    def cost(self, guide_cost: float) -> NDArray[np.float64]:
        """Give what each call of one image costs, (calls,), in calls of the network alone.

        Args:
            guide_cost: a call of the guide, in calls of the network.
        """
        once = np.where(self.table.guide == 0, 1.0, 1.0 + guide_cost)
        return np.where(self.table.antithetic == 0, once, 2 * once)

    def start(self) -> list[SampleState]:
        """Give every image before its first call: noise, or the noised target (SDEdit, Meng et al. 2022)."""
        first = noises(torch.tensor([noise_key(seed, 0) for seed in self.seeds]), self.shape)
        if self.target is not None:
            first = math.sqrt(self.start_alpha_bar) * self.target + math.sqrt(1 - self.start_alpha_bar) * first
        return [SampleState(self.table, seed, x, target=self.target) for seed, x in zip(self.seeds, first, strict=True)]


@dataclass(frozen=True)
class _Asked:
    """What `make_plan` was asked for, checked; only the schedule knows how many calls are too many."""

    mode: Mode
    seeds: tuple[int, ...]
    resemblance: float | None
    point: CurvePoint | None
    sampler: Sampler | None
    num_inference_steps: int | None
    eta: float
    guidance_loss_scale: float
    guide: float | None
    judgement: Judgement

    def calls(self, default: int) -> int:
        """Give the network calls asked for, or the default."""
        return default if self.num_inference_steps is None else self.num_inference_steps

    def parameters(self, mode: Mode, table: StepTable, **own: Any) -> dict[str, Any]:
        """Say what was asked for, with the defaults filled in that the mode has chosen."""
        common = {"num_images": len(self.seeds), "mode": str(mode), "seed": self.seeds[0]}
        return {**common, **own, "num_inference_steps": len(table)}


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
    guide: float | None = None,
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
        sampler: the bundle's own unless said; `pixel` is DDIM.
        num_inference_steps: network calls, 1..start level; by mode unless said.
        eta: 0..1, for `ddim`.
        guidance_loss_scale: ≥ 0, for `pixel`.
        guide: w of autoguidance, 1..3; 1 for none; the bundle's own unless said. Not with `pixel`.
        seed: 0..2³²−1, or −1 for a random one.
        judgement: what `Pipeline.judge` said of the target; `auto` chooses by it.

    Raises:
        InvalidInput: a value outside its range, or a mode that needs a target and has none.
    """
    _check_ranges(
        num_images=num_images,
        seed=seed,
        resemblance=resemblance,
        eta=eta,
        guidance_loss_scale=guidance_loss_scale,
        guide=guide,
    )
    if point is not None and resemblance is not None:
        raise ValueError("resemblance and point exclude each other")
    size, channels = bundle.manifest.image_size, bundle.manifest.channels
    if target is not None and target.shape != (size, size, 3):
        raise ValueError(f"target {target.shape} is not {size} px square with 3 channels")
    first = secrets.randbelow(MAX_SEED + 1) if seed == -1 else seed
    asked = _Asked(
        mode=_member(Mode, mode, "mode") if mode else (Mode.NONE if target is None else Mode.AUTO),
        seeds=tuple((first + i) % (MAX_SEED + 1) for i in range(num_images)),
        resemblance=resemblance,
        point=point,
        sampler=None if sampler is None else _member(Sampler, sampler, "sampler"),
        num_inference_steps=num_inference_steps,
        eta=eta,
        guidance_loss_scale=guidance_loss_scale,
        guide=guide,
        judgement=judgement,
    )
    if asked.mode is Mode.NONE:
        return _unguided(bundle, asked)
    if target is None:
        raise InvalidInput(
            "image_required", f"Mode {asked.mode} needs an image.", field="mode", given=str(asked.mode), allowed="none"
        )
    guided = _pixel if asked.mode is Mode.PIXEL else _low_pass
    return guided(bundle, asked, to_tensor(target, channels))


def _unguided(bundle: Bundle, asked: _Asked) -> Plan:
    """Start from noise at the highest level."""
    _refuse_resemblance(asked)
    sampler = asked.sampler or bundle.manifest.defaults.sampler
    calls = asked.calls(bundle.manifest.defaults.num_inference_steps)
    table = _table(bundle, sampler, bundle.schedule.num_levels, calls, asked.eta)
    table, strength = _pushed(bundle, table, asked)
    parameters = asked.parameters(Mode.NONE, table, sampler=str(sampler), eta=asked.eta, **strength)
    return Plan(table, asked.seeds, bundle.shape, None, parameters)


def _pixel(bundle: Bundle, asked: _Asked, target: Tensor) -> Plan:
    """Follow the Hugging Face course's loop: DDIM, leading spacing, from pure noise."""
    _refuse_resemblance(asked)
    if asked.sampler not in (None, Sampler.DDIM):
        raise InvalidInput(
            "conflict", "Mode pixel samples with ddim only.", field="sampler", given=str(asked.sampler), allowed="ddim"
        )
    if asked.guide not in (None, 1):
        raise InvalidInput(
            "conflict", "Mode pixel is not pushed by a guide.", field="guide", given=asked.guide, allowed="1"
        )
    scale, schedule = asked.guidance_loss_scale, bundle.schedule
    table = ddim_raw(schedule, schedule.leading(asked.calls(PIXEL_CALLS)))
    table = replace(table, pixel=scale / (math.prod(bundle.shape) * schedule.alpha_bar[table.levels[:-1]]))
    mode, warnings = _choose_mode(asked)
    parameters = asked.parameters(mode, table, sampler=str(Sampler.DDIM), eta=0.0, guidance_loss_scale=scale)
    return Plan(table, asked.seeds, bundle.shape, target, parameters, warnings)


def _low_pass(bundle: Bundle, asked: _Asked, target: Tensor) -> Plan:
    """Start from the noised target at σ_start and pull its coarse structure while σ > σ_stop."""
    mode, warnings = _choose_mode(asked)
    is_faceless = mode is Mode.CELEBRITY and asked.resemblance is None and asked.judgement.has_face is False
    tone = bundle.manifest.statistics.tone
    if tone is not None and (is_faceless or asked.judgement.is_strange):
        target = pull(target, tone)
    place: dict[str, Any] = {}
    point = asked.point
    if point is None:
        named = _FACELESS if is_faceless else RESEMBLANCE.get(mode)
        place["resemblance"] = named if asked.resemblance is None else asked.resemblance
        point = _paced(curve(place["resemblance"]), bundle)
    sampler = asked.sampler or bundle.manifest.defaults.sampler
    table, strength = _pushed(bundle, _low_pass_table(bundle, point, sampler, asked), asked)
    parameters = asked.parameters(mode, table, **place, sampler=str(sampler), eta=asked.eta, **strength)
    alpha_bar = float(bundle.schedule.alpha_bar[table.levels[0]])
    return Plan(table, asked.seeds, bundle.shape, target, parameters, warnings, alpha_bar)


def _table(bundle: Bundle, sampler: Sampler, start: int, calls: int, eta: float) -> StepTable:
    """Make the sampler's table from a start level on, at the levels that suit it."""
    schedule, side = bundle.schedule, bundle.manifest.image_size
    if sampler is not Sampler.LCM:
        return build(sampler, schedule, schedule.karras(start, calls), eta=eta)
    table = build(sampler, schedule, schedule.karras(start, calls, _LCM_LEAST * side / REFERENCE_SIDE))
    at = table.levels[:-1]
    call = np.arange(calls)
    in_pairs = (schedule.sigma_256(side)[at] < _PAIRED_BELOW) & (call > 0) & (call < calls - 1)
    if bundle.manifest.averages:
        return replace(table, D=np.where(np.append(in_pairs[1:], False), 0.0, table.D))
    return replace(table, antithetic=np.where(in_pairs, np.sqrt(1 - schedule.alpha_bar[at]), 0.0))


def _paced(point: CurvePoint, bundle: Bundle) -> CurvePoint:
    """Let a model that makes faces of noise in fewer calls than usual make these in fewer as well."""
    share = bundle.manifest.defaults.num_inference_steps / SamplingDefaults().num_inference_steps
    return replace(point, calls=max(1.0, point.calls * share))


def most_calls(bundle: Bundle) -> dict[str, Any]:
    """Give the most network calls that can be asked for, for a form that offers them.

    Returns:
        `unguided`: from noise alone, and in mode `pixel`; `guided`: at resemblance 0, 0.05 … 1.
    """
    places = np.linspace(0, 1, _PLACES)
    return {
        "unguided": bundle.schedule.num_levels,
        "guided": [_start_level(bundle, curve(float(place))) for place in places],
    }


def _start_level(bundle: Bundle, point: CurvePoint) -> int:
    return bundle.schedule.level_at(point.sigma_start, bundle.manifest.image_size)


def _low_pass_table(bundle: Bundle, point: CurvePoint, sampler: Sampler, asked: _Asked) -> StepTable:
    """Make the sampler's table from σ_start on, with w falling in ln σ down to σ_stop."""
    size, schedule = bundle.manifest.image_size, bundle.schedule
    start = _start_level(bundle, point)
    table = _table(bundle, sampler, start, asked.calls(min(round(point.calls), start)), asked.eta)
    sigma = schedule.sigma_256(size)[table.levels[:-1]]
    fade = np.log(sigma / point.sigma_stop) / math.log(point.sigma_start / point.sigma_stop)
    n = len(table)
    return replace(
        table,
        weight=point.weight * fade.clip(0, 1),
        grid=np.full(n, float(min(round(point.grid), size))),
        chroma=np.full(n, point.chroma),
        apart=np.full(n, point.apart),
        spared=np.full(n, _SPARED if _is_human_face(bundle, asked) else 0.0),
    )


def _is_human_face(bundle: Bundle, asked: _Asked) -> bool:
    return bundle.manifest.domain.kind == "human" and asked.judgement.has_face is not False


def _pushed(bundle: Bundle, table: StepTable, asked: _Asked) -> tuple[StepTable, dict[str, float]]:
    """Let the bundle's guide push inside its interval of σ; say how far, where there is a guide."""
    guide = bundle.manifest.guide
    if guide is None:
        if asked.guide not in (None, 1):
            message = f"{bundle.manifest.name} has no guide that could push by {asked.guide:g}."
            raise InvalidInput("no_guide", message, field="guide", given=asked.guide, allowed="1")
        return table, {}
    weight = guide.weight if asked.guide is None else asked.guide
    sigma = bundle.schedule.sigma_256(bundle.manifest.image_size)[table.levels[:-1]]
    strength = np.where(table.noiseless, 0.0, guide.strength(sigma, weight))  # what it adds there has been learnt
    return replace(table, guide=strength), {"guide": weight}


def _choose_mode(asked: _Asked) -> tuple[Mode, tuple[tuple[str, str], ...]]:
    """Choose for `auto`, unless a resemblance says it already; say why, and what may disappoint."""
    judgement, mode = asked.judgement, asked.mode
    does = f"mode {mode} is kept as asked for."
    if asked.resemblance is not None:
        does = f"resemblance {asked.resemblance:g} is kept as asked for."
    elif mode is Mode.AUTO:
        mode = Mode.CELEBRITY
        does = f"mode {mode} is used, which does not follow it closely."
    if judgement.is_strange:
        return mode, (("strange_target", f"The picture is unlike those that the model was made for: {does}"),)
    if judgement.has_face is False and asked.mode is Mode.AUTO and mode is not Mode.AUTO:
        return mode, (("no_face_to_follow", f"There is no face to follow: {does}"),)
    return mode, ()


def _refuse_resemblance(asked: _Asked) -> None:
    if asked.resemblance is not None:
        raise InvalidInput(
            "conflict",
            f"resemblance has no meaning in mode {asked.mode}.",
            field="resemblance",
            given=asked.resemblance,
            allowed="auto, faithful, likeness, celebrity",
        )


def _check_ranges(**given: float | None) -> None:
    for field, value in given.items():
        low, high = RANGES[field]
        if value is not None and not low <= value <= high:  # NaN fails too
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
