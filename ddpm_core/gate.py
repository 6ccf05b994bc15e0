"""Is a target like what the model knows? How well the model denoises it, beside what plain smoothing achieves.

The denoising error alone mostly tells how much detail a picture has: a flat one looks typical, a sharp face strange.
So it is judged against the error of the best plain smoothing of the same noisy picture (input complexity, Serrà et al.
2020): ln(model's) is predicted from ln(smoothing's) by a line fitted to typical pictures, and what lies above the line
is strange. Levels as in METHODS §2, in the one noise coordinate σ at a 256 px side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_core.bundle import Gate
from ddpm_core.denoiser import Denoiser
from ddpm_core.guidance import low_pass
from ddpm_core.sampling import noise

SIGMAS = (0.35, 1.1, 2.0)
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


@torch.inference_mode()
def denoising_errors(
    denoiser: Denoiser, images: Tensor, sigmas: Sequence[float] = SIGMAS, *, rows: int = len(SIGMAS)
) -> tuple[Tensor, Tensor]:
    """Give ln of the mean squared error of the clean image, as the model and as plain smoothing predict it.

    Args:
        denoiser: the model.
        images: (B, C, H, W) in [−1, 1].
        sigmas: noise levels, at a 256 px side; the same noise for every image.
        rows: images in one network call.

    Returns:
        Two of (B, len(sigmas)), on the CPU.
    """
    schedule, side = denoiser.schedule, images.shape[-1]
    levels = [schedule.level_at(sigma, side) for sigma in sigmas]
    clean = images.to(denoiser.device).clamp(-1, 1).repeat_interleave(len(levels), 0)
    z = torch.stack([noise(_NOISE_SEED, i, images.shape[1:]) for i in range(len(levels))]).to(clean)
    level = torch.tensor(levels, device=clean.device).repeat(len(images))
    a = torch.tensor(schedule.alpha_bar[levels], dtype=clean.dtype, device=clean.device)
    a = a.repeat(len(images)).view(-1, 1, 1, 1)
    x = a.sqrt() * clean + (1 - a).sqrt() * z.repeat(len(images), 1, 1, 1)
    parts = zip(torch.split(x, rows), torch.split(level, rows), strict=True)
    predicted = torch.cat([denoiser(part, at) for part, at in parts]).clamp(-1, 1)
    seen = x / a.sqrt()
    smoothed = [_error(low_pass(seen, grid), clean) for grid in _GRIDS if grid <= side]
    model, plain = _error(predicted, clean), torch.stack(smoothed).amin(0)
    shape = (len(images), len(levels))
    return model.log().view(shape).cpu(), plain.log().view(shape).cpu()


def fit(model: Tensor, plain: Tensor, source: str) -> Gate:
    """Make a gate's statistics from the errors (N, levels) of typical pictures.

    Args:
        model: from `denoising_errors` at the default levels.
        plain: likewise.
        source: which pictures these are.
    """
    y, x = model.double(), plain.double()
    covariance = ((x - x.mean(0)) * (y - y.mean(0))).mean(0)
    slopes = covariance / x.var(0, correction=0).clamp(min=1e-6)  # about 0 where smoothing is no better anywhere
    offsets = y.mean(0) - slopes * x.mean(0)
    line = Gate.model_validate(
        {"slopes": slopes.tolist(), "offsets": offsets.tolist(), "spread": 1, "images": len(model), "source": source}
    )
    spread = score(line, model, plain).std().clamp(min=1e-6)  # pictures that are all alike do not scatter
    return line.model_copy(update={"spread": float(spread)})


def score(gate: Gate, model: Tensor, plain: Tensor) -> Tensor:
    """Give the standard deviations (N,) that pictures with errors (N, levels) lie above what is usual."""
    slopes, offsets = torch.tensor(gate.slopes).to(model), torch.tensor(gate.offsets).to(model)
    return (model - slopes * plain - offsets).mean(1) / gate.spread


def _error(image: Tensor, clean: Tensor) -> Tensor:
    return (image - clean).square().flatten(1).mean(1).clamp(min=1e-12)
