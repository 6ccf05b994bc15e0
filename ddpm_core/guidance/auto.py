"""Autoguidance: a worse network of the same kind shows where errors lie, and the prediction is moved the other way.

    Δ = (w − 1) · (r − r_guide)

Karras et al. 2024, "Guiding a diffusion model with a bad version of itself". It moves the raw prediction, before the
clip, so what the sampler remembers of a call is moved too.
"""

from __future__ import annotations

from torch import Tensor


def auto_displacement(r: Tensor, r_guide: Tensor, strength: Tensor) -> Tensor:
    """Give Δ for raw predictions r and r_guide (B, C, H, W) of the same images, and strengths (B,) = w − 1."""
    return strength.view(-1, 1, 1, 1) * (r - r_guide)
