"""Noise is a function of (seed, position): an image does not depend on what shares its batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MAX_SEED = 2**32 - 1
_POSITIONS = 2**16
SPREAD = 0x9E3779B1  # odd, so at each position all seeds differ


def noise(seed: int, position: int, shape: Sequence[int]) -> Tensor:
    """Give standard normal noise of `shape`, float32, on the CPU.

    Args:
        seed: of the image, 0..MAX_SEED.
        position: 0 for the start noise, k + 1 for call k.
        shape: usually (C, H, W).
    """
    if not (0 <= seed <= MAX_SEED and 0 <= position < _POSITIONS):
        raise ValueError(f"seed {seed} or position {position} is out of range")
    high, low = divmod(seed, _POSITIONS)
    # PyTorch's generator on the CPU takes 32 bits, so a seed's upper half is folded in (docs/decisions.md).
    generator = torch.Generator("cpu").manual_seed((low * _POSITIONS + position) ^ (high * SPREAD % 2**32))
    return torch.randn(tuple(shape), generator=generator)
