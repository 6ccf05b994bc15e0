"""Guidance moves the predicted clean image towards a target: it is a displacement Δ, not a sampler."""

from ddpm_core.guidance.apart import EYES, apart_displacement, detail, features
from ddpm_core.guidance.auto import auto_displacement
from ddpm_core.guidance.lowpass import low_pass, low_pass_displacement
from ddpm_core.guidance.pixel import pixel_displacement, pixel_displacement_through

__all__ = [
    "EYES",
    "apart_displacement",
    "auto_displacement",
    "detail",
    "features",
    "low_pass",
    "low_pass_displacement",
    "pixel_displacement",
    "pixel_displacement_through",
]
