"""Grids on pictures of networks that see blocks of pixels as channels: taken out of what such a network predicts.

To a network on blocks the places within a block are channels like any other, which it predicts a few grey levels
apart, and the detail of a picture is one more channel beside the coarse picture. Eyes see a woven pattern.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm_core.bands import haar

_AROUND = 5
"""Blocks across within which detail is one with what the coarse picture says, on the average."""


def without_grid(images: Tensor, patch: int) -> Tensor:
    """Take out what sets one pixel of every block apart from its neighbours, all over the image (B, C, H, W).

    In a picture they have one mean (over real faces of 64 px they differ by 0.6 grey levels). Measured:
    docs/decisions.md.
    """
    blocks = F.pixel_unshuffle(images, patch)  # (B, C·p², H/p, W/p)
    mean = blocks.mean((2, 3)).view(len(images), -1, patch**2)
    return F.pixel_shuffle(blocks - (mean - mean.mean(2, keepdim=True)).view(*blocks.shape[:2], 1, 1), patch)


def without_weave(bands: Tensor, patch: int) -> Tensor:
    """Take the grids out of clean bands (B, 4C, H, W), the coarse picture first.

    Detail that is nought makes squares of the coarse picture's pixels, and not a smooth picture. In photographs it is,
    on the average of a neighbourhood, what enlarging the coarse picture smoothly gives.
    """
    coarse, detail = bands.tensor_split([bands.shape[1] // 4], dim=1)
    coarse = without_grid(coarse, patch) if patch > 1 else coarse
    beyond = F.pixel_unshuffle(detail - detail_of_smooth(coarse), patch)
    around = F.avg_pool2d(beyond, _AROUND, 1, _AROUND // 2, count_include_pad=False)
    return torch.cat([coarse, detail - F.pixel_shuffle(around, patch)], 1)


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
