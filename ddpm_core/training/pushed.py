"""A denoiser pushed by a guide, at any noise level: what is served, for training to learn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ddpm_core.bundle import Bundle
from ddpm_core.denoiser import Denoiser, make_ready
from ddpm_core.guidance import auto_displacement


@dataclass(frozen=True, eq=False)
class Pushed:
    """A denoiser pushed by its guide (Meng et al. 2023, "On distillation of guided diffusion models").

    Attributes:
        denoiser: the network and its guide.
        strength: (T+1,) float32, w − 1 a level; nought outside the guide's interval.
    """

    denoiser: Denoiser
    strength: Tensor

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict clean images (B, C, H, W) from noisy ones at timesteps t (B,)."""
        level = t + 1
        r = self.denoiser(x, level)
        strength = self.strength.to(x.device)[level]
        pushed = strength.nonzero()[:, 0]
        if len(pushed):
            x, level, own, strength = x[pushed], level[pushed], r[pushed], strength[pushed]
            r[pushed] = own + auto_displacement(own, self.denoiser.guided_by(x, level, own), strength)
        return r


def pushed_by_guide(
    bundle: Bundle, network: nn.Module, device: torch.device, dtype: torch.dtype, guided_as: Bundle, weight: float = 0
) -> Pushed:
    """Give a network as the guide of a finished model pushes it.

    Args:
        bundle: what the network is, or will be.
        network: on `device`.
        device: where the images are.
        dtype: what is computed in.
        guided_as: the finished model, of the same pictures; without a guide, or with another noise schedule, nothing
            pushes.
        weight: how far, 1..3 (1 is not at all); 0 for the finished model's own.
    """
    denoiser = bundle.denoiser(network, device, dtype)
    sigma = bundle.schedule.sigma_256(bundle.manifest.image_size)
    strength, push = np.zeros_like(sigma), guided_as.manifest.guide
    if push is not None and guided_as.schedule.is_like(bundle.schedule):
        guide = guided_as.load_guide()
        assert guide is not None
        denoiser.guide = guided_as.denoiser(network, device, dtype, make_ready(guide, device, dtype)).guide
        strength = push.strength(sigma, weight or push.weight)
    return Pushed(denoiser, torch.from_numpy(strength).float())
