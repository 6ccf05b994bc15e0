"""Best of K: which of the finished images to show first."""

from __future__ import annotations

from torch import Tensor

from ddpm_core.guidance import low_pass

_CELLS = 16


def best(images: Tensor, target: Tensor | None, keep: int) -> list[int]:
    """Give the indices of the `keep` images (B, C, H, W) nearest to `target` (C, H, W) at 16 × 16 cells, nearest first.

    All of them, or without a target: the first `keep`, in their own order.
    """
    if target is None or keep >= len(images):
        return list(range(keep))
    distance = low_pass(images.clamp(-1, 1) - target, _CELLS).square().flatten(1).mean(1)
    return distance.argsort(stable=True)[:keep].tolist()
