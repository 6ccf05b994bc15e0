"""Guidance away from the copy: where the clean image's detail comes too near to the target's, the excess is taken out.

Low-pass guidance may bring pose, light and colour as near as one likes; what must not come along is the detail, by
which one photograph is told from another of the same person. Only what is the target's is taken, not the model's own;
nothing happens to images that are far enough. It is asked at every call, so the network goes on to other details.
The idea is anti-memorization guidance (Chen et al. 2024), here in closed form, with the target for training images.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ddpm_core.guidance.lowpass import low_pass, luma

_COARSE, _FINE = 16, 64
EYES = (0.38, 0.56, 0.2, 0.8)
"""Top, bottom, left and right of an aligned human face's eyes (CelebA-HQ's framing), in parts of the side."""
_NOSE_AND_MOUTH = (0.56, 0.84, 0.3, 0.7)  # as EYES
_EDGE = 0.04


def detail(image: Tensor) -> Tensor:
    """Give what luma shows at 64 cells a side and not at 16.

    Args:
        image: (B, C, H, W), H = W, one channel or RGB.

    Returns:
        (B, 1, H, W).
    """
    light = luma(image) if image.shape[1] == 3 else image
    return low_pass(light, _FINE) - low_pass(light, _COARSE)


def apart_displacement(x0: Tensor, target: Tensor, distance: Tensor, spared: Tensor) -> Tensor:
    """Give Δ, along the target's detail, after which that of x0 is far enough from it.

    Args:
        x0: (B, C, H, W) clean prediction, H = W.
        target: (B, C, H, W).
        distance: (B,) least 1 − correlation of both details, 0..1; 0 asks for none.
        spared: (B,) how far eyes, nose and mouth are left as they are, 0..1: by them a person is known, and photographs
            of one person share them; by hair, clothes and light one photograph is told from another.

    Returns:
        (B, 1, H, W), the same for every channel.
    """
    own, theirs = detail(x0), detail(target)
    theirs = theirs / theirs.flatten(1).norm(dim=1).clamp(min=1e-6).view(-1, 1, 1, 1)
    step = theirs * (1 - spared.view(-1, 1, 1, 1) * features(x0.shape[-1], x0.device).to(x0.dtype))
    d, t, u = own.flatten(1), theirs.flatten(1), detail(step).flatten(1)  # u: what a unit of the step takes from d
    # (d − p·u)·t = c·|d − p·u|, squared: a quadratic in p, whose first root on the way out is written so
    # that the sign of its square does not matter.
    c2 = (1 - distance).square()
    dt, ut = (d * t).sum(1), (u * t).sum(1)
    square = ut.square() - c2 * (u * u).sum(1)
    half = dt * ut - c2 * (d * u).sum(1)
    rest = dt.square() - c2 * (d * d).sum(1)
    p = rest / (half + (half.square() - square * rest).clamp(min=0).sqrt()).clamp(min=1e-6)
    near = (distance > 0) & (dt > 0) & (rest > 0)
    taken: Tensor = torch.where(near, p, 0).view(-1, 1, 1, 1) * step
    return -taken


@lru_cache(maxsize=16)
def features(side: int, device: torch.device) -> Tensor:
    """Give where an aligned human face has eyes, nose and mouth, (side, side), 1 there, 0 elsewhere, soft between."""
    at = (torch.arange(side) + 0.5) / side

    def within(low: float, high: float) -> Tensor:
        return ((torch.minimum(at - low, high - at) + _EDGE) / (2 * _EDGE)).clamp(0, 1)

    parts = [within(top, bottom)[:, None] * within(left, right) for top, bottom, left, right in (EYES, _NOSE_AND_MOUTH)]
    return torch.stack(parts).amax(0).to(device)
