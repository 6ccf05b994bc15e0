"""The noise schedule: how much of an image is left at each level.

Levels run 0..T. Level 0 is the clean image (ᾱ = 1); level T is nearly pure noise. A network trained on
timesteps t = 0..T−1 sees level − 1; only `ddpm_core.denoiser` does that subtraction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_core.clip import Clip
from ddpm_core.clip import from_diffusers as clip_from_diffusers
from ddpm_core.errors import InvalidInput

REFERENCE_SIDE = 256
"""Noise is per pixel, so σ means the same for every image size only after scaling to one side length."""

OBEYED = frozenset(
    {"num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"}
    | {"clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio", "sample_max_value"}
)
"""Settings of diffusers' schedulers that are done as they say: the schedule here, what is cut in `ddpm_core.clip`."""

HARMLESS = frozenset(
    # which steps are taken
    {"timestep_spacing", "steps_offset", "set_alpha_to_one", "final_sigmas_type", "lambda_min_clipped"}
    | {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "interpolation_type"}
    # how they are taken
    | {"skip_prk_steps", "solver_order", "algorithm_type", "solver_type", "lower_order_final", "euler_at_final"}
    | {"predict_x0", "disable_corrector", "solver_p"}
    # of processes that are refused by another setting
    | {"flow_shift", "time_shift_type"}
    # of former versions
    | {"tensor_format", "timestep_values", "num_inference_steps"}
)
"""Settings that say how diffusers samples; here the samplers' tables say that."""

LIMITED: Mapping[str, Sequence[Any]] = {
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "variance_type": ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
    "rescale_betas_zero_snr": (False,),
    "timestep_type": ("discrete",),
    "use_flow_sigmas": (False,),
    "use_dynamic_shifting": (False,),
    "shift_terminal": (),
    "sigma_min": (),
    "sigma_max": (),
}
"""Settings that otherwise make another process, or ask for more than a network gives → the values that are taken."""

_SIGMA_MAX = 80.0
_SIGMA_MIN, _FALL = 0.06, 4.0
_RHO = 7.0


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """ᾱ per level, float64.

    Attributes:
        alpha_bar: (T+1,) share of signal variance; `alpha_bar[0] == 1`, strictly falling, > 0.
        config: the diffusers scheduler settings that make the same schedule.
    """

    alpha_bar: NDArray[np.float64]
    config: Mapping[str, Any]

    def __post_init__(self) -> None:
        a = self.alpha_bar
        if a.ndim != 1 or len(a) < 2 or a[0] != 1.0 or not (np.diff(a) < 0).all() or not a[-1] > 0:
            end = "; it ends at 0: zero terminal SNR" if a.size and a.flat[-1] == 0 else ""
            raise ValueError(f"alpha_bar must start at 1 and fall strictly to a value above 0{end}")
        a.setflags(write=False)

    @property
    def num_levels(self) -> int:
        """T, the highest level."""
        return len(self.alpha_bar) - 1

    @property
    def name(self) -> str:
        """What diffusers calls the curve, or `trained_betas` where each level's noise is given."""
        if self.config.get("trained_betas") is not None:
            return "trained_betas"
        return str(self.config.get("beta_schedule", "linear"))

    @property
    def clip(self) -> Clip:
        """What makes a clean image of a raw prediction."""
        return clip_from_diffusers(self.config)

    @property
    def sigma(self) -> NDArray[np.float64]:
        """(T+1,) σ = √((1−ᾱ)/ᾱ), noise per unit of signal."""
        return np.sqrt((1 - self.alpha_bar) / self.alpha_bar)

    def sigma_256(self, image_size: int) -> NDArray[np.float64]:
        """(T+1,) σ normalised to a 256 px side: σ·256/H."""
        return self.sigma * (REFERENCE_SIDE / image_size)

    def level_at(self, sigma_256: float, image_size: int) -> int:
        """Give the level, 1..T, whose normalised σ is nearest to `sigma_256` (in the logarithm)."""
        return self._nearest(sigma_256 * image_size / REFERENCE_SIDE)

    def _nearest(self, sigma: float) -> int:
        return 1 + int(np.argmin(np.abs(np.log(self.sigma[1:]) - math.log(sigma))))

    def karras(self, start: int, steps: int, least: float = _SIGMA_MIN) -> tuple[int, ...]:
        """Give `steps` + 1 levels from `start` down to 0, the first exactly `start`, spaced in σ^(1/ρ).

        Karras et al. 2022, eq. 5, with ρ = 7, from σ of `start` or 80, whichever is less, to `least`, and then to 0. Of
        few steps the last has more noise: each has about a quarter of the one before, no less. Of many each takes a
        level of its own; with `start` steps they are all levels. Measured beside evenly spaced timesteps:
        docs/decisions.md.
        """
        if not 1 <= start <= self.num_levels:
            raise ValueError(f"start level {start} is outside 1..{self.num_levels}")
        if not 1 <= steps <= start:
            raise InvalidInput(
                "out_of_range",
                f"num_inference_steps must be between 1 and the start level {start}.",
                field="num_inference_steps",
                given=steps,
                allowed=f"1..{start}",
            )
        high = min(self.sigma[start], _SIGMA_MAX)
        low = max(min(least, high / _FALL), high * _FALL ** (1 - steps))
        sigma = np.linspace(high ** (1 / _RHO), low ** (1 / _RHO), steps) ** _RHO
        levels = [start]
        for left in range(steps - 1, 0, -1):
            levels.append(max(min(self._nearest(sigma[-left]), levels[-1] - 1), left))
        return (*levels, 0)

    def leading(self, steps: int) -> tuple[int, ...]:
        """Give `steps` + 1 levels in diffusers' `leading` spacing: timesteps 975, 950 … 0 for 40 of 1000."""
        if not 1 <= steps <= self.num_levels:
            raise InvalidInput(
                "out_of_range",
                f"num_inference_steps must be between 1 and {self.num_levels}.",
                field="num_inference_steps",
                given=steps,
                allowed=f"1..{self.num_levels}",
            )
        stride = self.num_levels // steps
        return (*(k * stride + 1 for k in reversed(range(steps))), 0)


def _from_betas(betas: NDArray[np.float64], config: Mapping[str, Any]) -> NoiseSchedule:
    return NoiseSchedule(np.concatenate([[1.0], np.cumprod(1 - betas)]), dict(config))


def linear(num_levels: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> NoiseSchedule:
    """Make the linear schedule of Ho et al. 2020: β from `beta_start` to `beta_end`."""
    config = {
        "beta_schedule": "linear",
        "num_train_timesteps": num_levels,
        "beta_start": beta_start,
        "beta_end": beta_end,
    }
    return _from_betas(np.linspace(beta_start, beta_end, num_levels), config)


def cosine(num_levels: int = 1000, max_beta: float = 0.999) -> NoiseSchedule:
    """Make the cosine schedule of Nichol & Dhariwal 2021, eq. 17, with β capped at `max_beta`."""
    f = np.cos((np.arange(num_levels + 1) / num_levels + 0.008) / 1.008 * math.pi / 2) ** 2
    config = {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": num_levels}
    return _from_betas(np.minimum(1 - f[1:] / f[:-1], max_beta), config)


def doubled(schedule: NoiseSchedule) -> NoiseSchedule:
    """Make the schedule of pictures of twice the side: at each level σ is twice as large, and σ₂₅₆ the same."""
    return _scaled(schedule, 2)


def halved(schedule: NoiseSchedule) -> NoiseSchedule:
    """Make the schedule of pictures of half the side: of `doubled`, the one it was made from."""
    return _scaled(schedule, 0.5)


def _scaled(schedule: NoiseSchedule, factor: float) -> NoiseSchedule:
    alpha_bar = 1 / (1 + (factor * schedule.sigma) ** 2)
    betas = 1 - alpha_bar[1:] / alpha_bar[:-1]
    return _from_betas(betas, {"trained_betas": betas.tolist(), "num_train_timesteps": schedule.num_levels})


def from_diffusers(config: Mapping[str, Any]) -> NoiseSchedule:
    """Read the schedule out of a diffusers `scheduler_config.json`.

    Raises:
        InvalidInput: a setting that changes the mathematics and is not supported here, or is not known, by name; or
            numbers that make no schedule.
    """
    for key, given in config.items():
        if key.startswith("_") or key in OBEYED | HARMLESS or given is None:
            continue
        if given not in LIMITED.get(key, (False,)):
            raise _unsupported(key, given, LIMITED.get(key, ()))
    try:
        with np.errstate(all="ignore"):  # what is not finite is no schedule, and said to be none
            schedule = replace(_made(config), config=dict(config))
    except InvalidInput:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        allowed = "num_train_timesteps, a whole number above 0, and every beta between 0 and 1"
        message = f"The scheduler's settings make no schedule: {error}. It takes {allowed}."
        raise InvalidInput("unsupported_scheduler", message, allowed=allowed) from None
    clip_from_diffusers(config)  # refused now, not with the first image
    return schedule


def _made(config: Mapping[str, Any]) -> NoiseSchedule:
    if config.get("trained_betas") is not None:
        return _from_betas(np.asarray(config["trained_betas"], dtype=np.float64), config)
    num_levels = int(config.get("num_train_timesteps", 1000))
    beta_start, beta_end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    match config.get("beta_schedule", "linear"):
        case "linear":
            return linear(num_levels, beta_start, beta_end)
        case "scaled_linear":
            return _from_betas(np.linspace(math.sqrt(beta_start), math.sqrt(beta_end), num_levels) ** 2, config)
        case "squaredcos_cap_v2":
            return cosine(num_levels)
        case other:
            raise _unsupported("beta_schedule", other, ("linear", "scaled_linear", "squaredcos_cap_v2"))


def _unsupported(key: str, given: Any, allowed: Sequence[Any]) -> InvalidInput:
    words = ", ".join(map(str, allowed))
    rule = f"use one of: {words}" if allowed else "leave it out"
    return InvalidInput(
        "unsupported_scheduler",
        f"The scheduler setting {key} = {given} is not supported; {rule}.",
        field=key,
        given=given,
        allowed=words,
    )
