"""Soft low-pass guidance: the coarse structure of the clean image is pulled towards the target's.

    Δ = w · P_g(y − x0),   P_g = area-resize to g × g cells, bicubic back

The family of ILVR (Choi et al. 2021), DDNM (Wang et al. 2023) and MPGD (He et al. 2024); no gradient is needed.
P_g is separable and linear, so it is one H × H matrix on either side of the image: P_g(v) = M v Mᵀ. A batch may hold
a different grid in each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)  # BT.601


@lru_cache(maxsize=256)
def _projector(side: int, grid: int) -> Tensor:
    """Give M, (side, side) float32: area-resize of a line of pixels to `grid` cells, then bicubic back."""
    if grid >= side:
        return torch.eye(side)
    edges = torch.arange(grid + 1, dtype=torch.float64) * (side / grid)
    pixel = torch.arange(side, dtype=torch.float64)
    # Share of each pixel in each cell, also where the cells do not divide the side.
    overlap = torch.minimum(edges[1:, None], pixel + 1) - torch.maximum(edges[:-1, None], pixel)
    down = overlap.clamp(min=0) * (grid / side)  # (grid, side)
    # Cells as the height of a one-column picture: bicubic works along it alone.
    up = F.interpolate(
        torch.eye(grid, dtype=torch.float64)[:, None, :, None].expand(-1, -1, -1, 2), size=(side, 2), mode="bicubic"
    )[:, 0, :, 0].T  # (side, grid)
    return (up @ down).float()


@lru_cache(maxsize=256)
def _resident(side: int, grid: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Keep M where it is needed."""
    return _projector(side, grid).to(device, dtype)


@lru_cache(maxsize=16)
def _luma_weights(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(LUMA, dtype=torch.float32).to(device, dtype)


def luma(image: Tensor) -> Tensor:
    """Give the luma (B, 1, H, W) of RGB images (B, 3, H, W)."""
    return torch.einsum("bchw,c->bhw", image, _luma_weights(image.dtype, image.device))[:, None]


def low_pass(image: Tensor, grid: int) -> Tensor:
    """Give what of images (B, C, H, W), H = W, is left at `grid` × `grid` cells."""
    m = _resident(image.shape[-1], grid, image.dtype, image.device)
    return m @ image @ m.T


def low_pass_displacement(x0: Tensor, target: Tensor, weight: Tensor, grids: Sequence[int], chroma: Tensor) -> Tensor:
    """Give Δ for rows whose strengths and grids differ.

    Args:
        x0: (B, C, H, W) clipped clean prediction, H = W.
        target: (B, C, H, W) target in [−1, 1].
        weight: (B,) strength, 0..1.
        grids: B numbers of cells a side, ≥ 1.
        chroma: (B,) strength of the colour part: 0 leaves the model its own colours. Three channels only.
    """
    side = x0.shape[-1]
    m = torch.stack([_resident(side, grid, x0.dtype, x0.device) for grid in grids])[:, None]  # (B, 1, H, H)
    delta = m @ (target - x0) @ m.mT * weight.view(-1, 1, 1, 1)
    if x0.shape[1] != 3:
        return delta
    light = luma(delta)
    return light + chroma.view(-1, 1, 1, 1) * (delta - light)
