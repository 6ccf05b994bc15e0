"""From the raw predicted clean image to one in a range, as the scheduler's settings say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddpm_core.errors import InvalidInput


@dataclass(frozen=True)
class Clip:
    """A cut at a fixed value, or at one found in each image (dynamic thresholding, Saharia et al. 2022, §2.3).

    Attributes:
        reach: the fixed value; infinite where nothing is cut.
        share: of an image's values that dynamic thresholding leaves uncut; None for the fixed value.
        most: the largest value that dynamic thresholding brings back to 1.
    """

    reach: float = 1.0
    share: float | None = None
    most: float = 1.0

    def __call__(self, r: Tensor) -> Tensor:
        """Cut r (B, C, H, W); rows are independent."""
        if self.share is None:
            return r.clamp(-self.reach, self.reach)
        # As torch.quantile, which takes only so many values at once.
        values = r.abs().flatten(1).sort(1).values
        rank = self.share * (values.shape[1] - 1)
        below, above = values[:, math.floor(rank)], values[:, math.ceil(rank)]
        s = torch.lerp(below, above, rank % 1).clamp(1, self.most).view(-1, 1, 1, 1)
        return r.clamp(-s, s) / s


def from_diffusers(config: Mapping[str, Any]) -> Clip:
    """Read the clip out of a scheduler's settings; by default it cuts at 1.

    Raises:
        InvalidInput: a number that cannot be, by the setting's name.
    """
    if config.get("thresholding"):
        share = _number(config, "dynamic_thresholding_ratio", 0.995, 0, 1)
        return Clip(share=share, most=_number(config, "sample_max_value", 1.0, 1, math.inf))
    if config.get("clip_sample") is False:
        return Clip(math.inf)
    return Clip(_number(config, "clip_sample_range", 1.0, 1e-6, math.inf))


def _number(config: Mapping[str, Any], key: str, default: float, least: float, most: float) -> float:
    given = config.get(key)
    given = default if given is None else given
    if isinstance(given, bool) or not isinstance(given, int | float) or not least <= given <= most:
        allowed = f"a number from {least:g}" + ("" if math.isinf(most) else f" to {most:g}")
        message = f"The scheduler setting {key} = {given} is not possible: it is {allowed}."
        raise InvalidInput("unsupported_scheduler", message, field=key, given=given, allowed=allowed)
    return float(given)
