"""Pixel-loss guidance as in the Hugging Face diffusion course: a step along the sign of the pixel error.

The gradient of the mean absolute error is taken at the clean prediction alone, not through the network:

    Δ' = −(s/(M·ᾱ))·sign(clip(r) − y)·1[|r| ≤ 1],   M = C·H·W

`pixel_displacement_through` is the course's other variant, with the gradient taken through the network; where r
depends on x as r = (x − …)/√ᾱ alone, it is the same.

The course clips after the step, so that the displacement that the tick adds is Δ = clip(r + Δ') − clip(r).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def pixel_displacement(r: Tensor, target: Tensor, step: Tensor) -> Tensor:
    """Give Δ for raw predictions r (B, C, H, W), targets (B, C, H, W) in [−1, 1] and steps (B,) = s/(M·ᾱ)."""
    x0 = r.clamp(-1, 1)
    moved = r - step.view(-1, 1, 1, 1) * (x0 - target).sign() * (r.abs() <= 1)
    return moved.clamp(-1, 1) - x0


def pixel_displacement_through(
    predict: Callable[[Tensor], Tensor], x: Tensor, target: Tensor, step: Tensor, signal: Tensor
) -> Tensor:
    """Give Δ with the gradient through the network: Δ' = −(s/(M·ᾱ))·√ᾱ·∇ₓ Σ|clip(r(x)) − y|.

    Args:
        predict: gives r (B, C, H, W) from x; rows are independent.
        x: (B, C, H, W), noisy.
        target: (B, C, H, W).
        step: (B,) = s/(M·ᾱ).
        signal: (B,) = √ᾱ.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone().requires_grad_()
        r = predict(x)
        (gradient,) = torch.autograd.grad((r.clamp(-1, 1) - target).abs().sum(), x)
    r = r.detach()
    return (r - (step * signal).view(-1, 1, 1, 1) * gradient).clamp(-1, 1) - r.clamp(-1, 1)
