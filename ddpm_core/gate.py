"""Is a target like what the model knows? How well the model denoises it, beside what plain smoothing achieves.

The denoising error alone mostly tells how much detail a picture has: a flat one looks typical, a sharp face strange.
So it is judged against the error of the best plain smoothing of the same noisy picture (input complexity, Serrà et al.
2020): ln(model's) is predicted from ln(smoothing's) by a line fitted to typical pictures, and what lies above the line
is strange. One noise level tells, in the one noise coordinate σ at a 256 px side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_core.bundle import Gate
from ddpm_core.denoiser import Denoiser
from ddpm_core.guidance import low_pass
from ddpm_core.sampling import noise_key, noises

SIGMA = 4.0
"""Where real faces were told from cats best (docs/decisions.md); σ at a 256 px side."""
LIMIT = 3.0
"""Above so many standard deviations a picture is unlike those that the statistics were made of."""

_GRIDS = (4, 6, 8, 12, 16, 24, 32, 48, 64)
_NOISE_SEED = 20_061


@dataclass(frozen=True)
class Judgement:
    """What is known of a target before anything is planned.

    Attributes:
        score: standard deviations above what is usual; None from a model without statistics.
        has_face: whether a face of the model's domain was found; None where none was looked for.
    """

    score: float | None = None
    has_face: bool | None = None

    @property
    def is_strange(self) -> bool:
        """The score is above the limit."""
        return self.score is not None and self.score > LIMIT


def noised(denoiser: Denoiser, images: Tensor, sigma: float) -> tuple[Tensor, int]:
    """Give images with noise, always the same one, and the level they are at.

    Args:
        denoiser: whose schedule it is, and on whose device they come out.
        images: (B, C, H, W) in [−1, 1].
        sigma: noise level at a 256 px side.
    """
    level = denoiser.schedule.level_at(sigma, images.shape[-1])
    clean = images.to(denoiser.device).clamp(-1, 1)
    a = float(denoiser.schedule.alpha_bar[level])
    key = torch.full((1,), noise_key(_NOISE_SEED, 0), device=clean.device)
    return math.sqrt(a) * clean + math.sqrt(1 - a) * noises(key, images.shape[1:]).to(clean.dtype), level


@torch.inference_mode()
def denoising_errors(denoiser: Denoiser, images: Tensor, *, rows: int = 1) -> tuple[Tensor, Tensor]:
    """Give ln of the mean squared error of the clean image, as the model and as plain smoothing predict it at `SIGMA`.

    Args:
        denoiser: the model.
        images: (B, C, H, W) in [−1, 1].
        rows: images in one network call, all with the same noise.

    Returns:
        Two of (B,), on the denoiser's device.
    """
    x, level = noised(denoiser, images, SIGMA)
    clean, side = images.to(x.device).clamp(-1, 1), images.shape[-1]
    parts = [denoiser(part, torch.full((len(part),), level, device=x.device)) for part in torch.split(x, rows)]
    seen = x / math.sqrt(float(denoiser.schedule.alpha_bar[level]))
    smoothed = [_error(low_pass(seen, grid), clean) for grid in _GRIDS if grid <= side]
    return _error(torch.cat(parts).clamp(-1, 1), clean).log(), torch.stack(smoothed).amin(0).log()


def fit(model: Tensor, plain: Tensor, source: str) -> Gate:
    """Make a gate's statistics from the errors (N,) of typical pictures.

    Args:
        model: from `denoising_errors` at the default level.
        plain: likewise.
        source: which pictures these are.
    """
    y, x = model.double(), plain.double()
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    slope = covariance / x.var(correction=0).clamp(min=1e-6)  # about 0 where smoothing is no better anywhere
    offset = y.mean() - slope * x.mean()
    spread = (y - slope * x - offset).std().clamp(min=1e-6)  # pictures that are all alike do not scatter
    return Gate(slope=float(slope), offset=float(offset), spread=float(spread), images=len(model), source=source)


def score(gate: Gate, model: Tensor, plain: Tensor) -> Tensor:
    """Give the standard deviations (N,) that pictures with errors (N,) lie above what is usual."""
    return (model - gate.slope * plain - gate.offset) / gate.spread


def _error(image: Tensor, clean: Tensor) -> Tensor:
    return (image - clean).square().flatten(1).mean(1).clamp(min=1e-12)
