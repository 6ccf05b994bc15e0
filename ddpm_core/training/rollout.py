"""The network's own pictures, under way to the last call: what a sampler shows it, and no noised photograph does.

A batch takes each of them one call further, so a whole way of calls is learnt at the price of one call a step; the
network hardly changes meanwhile.

Source: training on the sampler's own pictures, Yin et al. 2024 (arXiv:2405.14867), §4.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_core.guidance import low_pass
from ddpm_core.sampling import mirrored
from ddpm_core.training.critic import even_in_log, nearest
from ddpm_core.training.objective import Objective

_START, _LAST = (4.0, 160.0), 0.24
"""σ₂₅₆ where a picture begins, from a selfie's to noise alone, and of its last call."""
_FALLS = (2.0, 8.0)
"""How many times less noise the next call has."""
_PULLED_FROM, _PULLED_TO = 16.0, 1.0
"""Who begins at less than the one is pulled towards its photograph down to the other, as a selfie's faces are."""
_PULL, _GRID = 0.9, 16
_MIRRORED_BELOW = 9.0
"""σ₂₅₆ from which on both sides of a face have the same noise, as in the plans."""


class UnderWay(NamedTuple):
    """Pictures before their next call.

    Attributes:
        x: (B, C, H, W), noisy.
        t: (B,) int64, their timesteps; −1 where the last call is done.
        x0: (B, C, H, W), the photographs that they began from.
        start: (B,) ln σ₂₅₆ at which.
    """

    x: Tensor
    t: Tensor
    x0: Tensor
    start: Tensor


class Rollout:
    """Takes pictures from call to call, and begins new ones where others are done.

    Args:
        objective: what the network is asked.
        log_sigma: (T,) ln σ₂₅₆ of the timesteps.
        mirror: whether late noise is the same on both sides, as that of faces is when they are sampled.
    """

    def __init__(self, objective: Objective, log_sigma: Tensor, *, mirror: bool) -> None:
        self.objective, self.log_sigma, self.mirror = objective, log_sigma, mirror
        self._now: UnderWay | None = None

    @torch.no_grad()
    def now(self, x0: Tensor) -> UnderWay:
        """Give the pictures under way; photographs x0 (B, C, H, W) take the places of those that are done."""
        start = even_in_log(len(x0), *_START, x0.device)
        t = nearest(self.log_sigma, start)
        new = UnderWay(self.objective.noised(x0, t, self._noise(x0, t)), t, x0, start)
        if self._now is not None:
            done = self._now.t < 0
            rows = (done.view(-1, *[1] * (old.dim() - 1)) for old in self._now)
            new = UnderWay(*(torch.where(row, a, b) for row, a, b in zip(rows, new, self._now, strict=True)))
        self._now = new
        return new

    @torch.no_grad()
    def go_on(self, made: Tensor) -> None:
        """Take the pictures to their next call by what the network made of them, (B, C, H, W), as `ddpm` does."""
        x, t, x0, start = self._taken()
        before = self.log_sigma[t]
        fallen = before - even_in_log(len(made), *_FALLS, made.device)
        after = nearest(self.log_sigma, fallen.clamp(min=math.log(_LAST)))
        fade = ((before - math.log(_PULLED_TO)) / (start - math.log(_PULLED_TO))).clamp(0, 1)
        weight = (_PULL * fade * (start < math.log(_PULLED_FROM))).view(-1, 1, 1, 1).to(made.dtype)
        r = made.clamp(-1, 1)
        r = r + weight * low_pass(x0 - r, _GRID)
        sigma, sigma_next = self.objective.sigma(t), self.objective.sigma(after)
        kept = (sigma_next / sigma).square()
        mean = r + kept * (x * (1 + sigma.square()).sqrt() - r)  # x/√ᾱ
        noisy = mean + sigma_next * (1 - kept).clamp(min=0).sqrt() * self._noise(r, after)
        x = noisy / (1 + sigma_next.square()).sqrt()
        self._now = UnderWay(x, torch.where(after < t, after, -1), x0, start)

    def _taken(self) -> UnderWay:
        if self._now is None:
            raise RuntimeError("no pictures are under way")
        return self._now

    def _noise(self, like: Tensor, t: Tensor) -> Tensor:
        noise = torch.randn_like(like)
        if not self.mirror:
            return noise
        return mirrored(noise, (self.log_sigma[t] <= math.log(_MIRRORED_BELOW)).to(noise.dtype))

    def state(self) -> dict[str, Tensor]:
        """Give where the pictures are, for `load`."""
        return {} if self._now is None else self._now._asdict()

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
        self._now = UnderWay(**state) if state else None
