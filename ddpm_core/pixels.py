"""Between pictures (uint8, height × width × 3) and the network's tensors (float, channels first, in [−1, 1])."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_LUMA = torch.tensor([0.299, 0.587, 0.114])  # BT.601

Pixels = NDArray[np.uint8]


def to_tensor(pixels: Pixels, channels: int = 3) -> Tensor:
    """Give (C, H, W) float32 in [−1, 1] from (H, W, 3) uint8; one channel is the BT.601 luma."""
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 127.5 - 1
    return x if channels == 3 else torch.einsum("chw,c->hw", x, _LUMA)[None]


def to_levels(x: Tensor) -> Tensor:
    """Give (…, H, W, 3) uint8 from (…, C, H, W) about in [−1, 1], C = 1 or 3, where x is; the rest is clipped."""
    levels = ((x.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return levels.expand(*levels.shape[:-3], 3, -1, -1).movedim(-3, -1).contiguous()


def to_pixels(x: Tensor) -> Pixels:
    """Give (H, W, 3) uint8 from (C, H, W), as `to_levels` does, on the host."""
    return to_levels(x).cpu().numpy()
