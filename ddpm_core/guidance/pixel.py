"""Pixel-loss guidance as in the Hugging Face diffusion course: a step along the sign of the pixel error (METHODS §2).

The gradient of the mean absolute error is taken at the clean prediction alone, not through the network:

    Δ' = −(s/(M·ᾱ))·sign(clip(r) − y)·1[|r| ≤ 1],   M = C·H·W

The course clips after the step, so that the displacement that the tick adds is Δ = clip(r + Δ') − clip(r).
"""

from __future__ import annotations

from torch import Tensor


def pixel_displacement(r: Tensor, target: Tensor, step: Tensor) -> Tensor:
    """Give Δ for raw predictions r (B, C, H, W), targets (B, C, H, W) in [−1, 1] and steps (B,) = s/(M·ᾱ)."""
    x0 = r.clamp(-1, 1)
    moved = r - step.view(-1, 1, 1, 1) * (x0 - target).sign() * (r.abs() <= 1)
    return moved.clamp(-1, 1) - x0
