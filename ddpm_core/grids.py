"""Grids on pictures of networks that see blocks of pixels as channels: taken out of what such a network predicts.

To a network on blocks the places within a block are channels like any other, which it predicts a few grey levels
apart, and the detail of a picture is one more channel beside the coarse picture. Eyes see a woven pattern.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm_core.bands import haar, unhaar

_AROUND, _BESIDE = 5, 3
"""Blocks within which detail is, on the average, what the coarse picture says; pixels whose detail is told together."""
_WEAVE = 0.04
"""Detail that a network draws where there is none, in images in [−1, 1]: five grey levels."""


def without_grid(images: Tensor, patch: int) -> Tensor:
    """Take out what sets one pixel of every block apart from its neighbours, all over the image (B, C, H, W).

    In a picture they have one mean (over real faces of 64 px they differ by 0.6 grey levels). Measured:
    docs/decisions.md.
    """
    blocks = F.pixel_unshuffle(images, patch)  # (B, C·p², H/p, W/p)
    mean = blocks.mean((2, 3)).view(len(images), -1, patch**2)
    return F.pixel_shuffle(blocks - (mean - mean.mean(2, keepdim=True)).view(*blocks.shape[:2], 1, 1), patch)


def without_weave(bands: Tensor, patch: int) -> Tensor:
    """Take the grids out of clean bands (B, 4C, H, W): out of the coarse picture, on blocks of 2 × 2, and of detail.

    Detail that is nought makes squares of the coarse picture's pixels, and not a smooth picture. In photographs it is,
    on the average of a neighbourhood, what enlarging the coarse picture smoothly gives. Where hardly more is seen than
    a network is wrong by, it is that alone (Wiener's filter).
    """
    coarse, detail = bands.tensor_split([bands.shape[1] // 4], dim=1)
    if patch == 2:
        coarser, between = haar(coarse).tensor_split([coarse.shape[1]], dim=1)
        coarse = unhaar(torch.cat([coarser, _likely(between, coarser / 2, 1)], 1))
    elif patch > 1:
        coarse = without_grid(coarse, patch)
    return torch.cat([coarse, _likely(detail, coarse, patch)], 1)


def _likely(detail: Tensor, coarse: Tensor, patch: int) -> Tensor:
    """Give detail (B, 3C, H, W) as it may be beside a coarse picture (B, C, H, W)."""
    smooth = detail_of_smooth(coarse)
    beyond = F.pixel_unshuffle(detail - smooth, patch)
    beyond = F.pixel_shuffle(beyond - _mean_around(beyond, _AROUND), patch)
    energy = _mean_around(beyond.square(), _BESIDE)
    return smooth + beyond * energy / (energy + _WEAVE**2)


def _mean_around(x: Tensor, side: int) -> Tensor:
    return F.avg_pool2d(x, side, 1, side // 2, count_include_pad=False)


def detail_of_smooth(coarse: Tensor) -> Tensor:
    """Give the detail bands (B, 3C, H, W) of a picture (B, C, H, W) that is enlarged twice, by cubic interpolation."""
    channels = coarse.shape[1]
    kernels = _kernels(coarse.dtype, coarse.device).repeat_interleave(channels, 0)
    pad = kernels.shape[-1] // 2
    padded = F.pad(coarse.repeat(1, 3, 1, 1), (pad, pad, pad, pad), mode="replicate")
    return F.conv2d(padded, kernels, groups=3 * channels)


@lru_cache(maxsize=16)
def _kernels(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Give what a pixel of the coarse picture adds to each detail band around it, turned for a convolution."""
    with torch.inference_mode(False):
        point = torch.zeros(1, 1, 7, 7)
        point[..., 3, 3] = 1
        answer = haar(F.interpolate(point, scale_factor=2, mode="bicubic", antialias=True))[0, 1:, None]
        return answer[..., 1:-1, 1:-1].flip(-1, -2).to(device, dtype)
