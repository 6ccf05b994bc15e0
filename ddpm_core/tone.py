"""The tone of a picture: how bright, how colourful and how contrasty it is, its detail apart."""

from __future__ import annotations

import torch
from torch import Tensor

from ddpm_core.bundle import Tone
from ddpm_core.guidance import low_pass

_CELLS = 16
_PULL = 0.6


def tone_of(images: Tensor) -> Tone:
    """Give the usual tone of images (N, C, H, W): their own means and standard deviations, averaged."""
    coarse = low_pass(images, _CELLS).flatten(2)
    mean, std = coarse.mean(2).mean(0), coarse.std(2).mean(0)
    return Tone(mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def pull(image: Tensor, tone: Tone) -> Tensor:
    """Draw the coarse structure of an image (C, H, W) in [−1, 1] 60 % of the way to a usual tone; detail stays."""
    coarse = low_pass(image[None], _CELLS)[0]
    mean, std = coarse.mean((1, 2), keepdim=True), coarse.std((1, 2), keepdim=True).clamp(min=1e-3)
    usual_mean, usual_std = (torch.tensor(values).to(image).view(-1, 1, 1) for values in (tone.mean, tone.std))
    wanted_mean = mean + _PULL * (usual_mean - mean)
    wanted_std = std + _PULL * (usual_std - std)
    return (image - coarse + (coarse - mean) * (wanted_std / std) + wanted_mean).clamp(-1, 1)
