"""Noise is a function of (seed, position): an image does not depend on what shares its batch, nor on the device.

A counter goes through SplitMix64 (Steele et al. 2014), and every 16 bits choose one of 65,536 equally likely values of
the normal distribution. Integers and a table are exact everywhere, as logarithms and cosines of devices are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

MAX_SEED = 2**32 - 1
_POSITIONS = 2**16
_BITS = 16  # a value's


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


_GAMMA, _MIX_1, _MIX_2 = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def noise_key(seed: int, position: int) -> int:
    """Give the number that stands for one image's noise at one place, for `noises`.

    Args:
        seed: of the image, 0..MAX_SEED.
        position: 0 for the start noise, k + 1 for call k; below 65,536.
    """
    if not (0 <= seed <= MAX_SEED and 0 <= position < _POSITIONS):
        raise ValueError(f"seed {seed} or position {position} is out of range")
    return seed * _POSITIONS + position


def noise(seed: int, position: int, shape: Sequence[int]) -> Tensor:
    """Give standard normal noise of `shape`, float32, on the CPU; seed and position as in `noise_key`."""
    return noises(torch.tensor([noise_key(seed, position)]), shape)[0]


def noises(keys: Tensor, shape: Sequence[int]) -> Tensor:
    """Give the noise of many images: the same bits on every device.

    Args:
        keys: (B,) int64, from `noise_key`.
        shape: of one image, usually (C, H, W).

    Returns:
        (B, *shape) standard normal, float32, on the keys' device.
    """
    values = math.prod(shape)
    words = -(-values * _BITS // 64)
    counter = torch.arange(1, words + 1, device=keys.device) * _GAMMA
    mixed = _mix(_mix(keys)[:, None] + counter)  # (B, words)
    index = mixed.view(torch.int16)[:, :values].int() + 2 ** (_BITS - 1)
    return _quantiles(keys.device).index_select(0, index.flatten()).view(len(keys), *shape)


def _mix(z: Tensor) -> Tensor:
    """Give SplitMix64's output for states of 64 bits; products wrap, and a shift leaves the sign's copies out."""
    z = (z ^ ((z >> 30) & (2**34 - 1))) * _MIX_1
    z = (z ^ ((z >> 27) & (2**37 - 1))) * _MIX_2
    return z ^ ((z >> 31) & (2**33 - 1))


@lru_cache(maxsize=16)
def _quantiles(device: torch.device) -> Tensor:
    """Give the middles of 65,536 equally likely parts of the normal distribution, (65536,), of variance 1."""
    z = torch.special.ndtri((torch.arange(2**_BITS, dtype=torch.float64) + 0.5) / 2**_BITS)
    values: Tensor = z / z.square().mean().sqrt()
    return values.float().to(device)
