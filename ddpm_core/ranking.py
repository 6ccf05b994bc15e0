"""How near finished images are to the selfie, and best of K: which of them to show first."""

from __future__ import annotations

from torch import Tensor

from ddpm_core.bundle import Wholeness
from ddpm_core.denoiser import Denoiser
from ddpm_core.guidance import low_pass
from ddpm_core.wholeness import features, score

_CELLS = 16
_NEARNESS = 0.25


def resemblance(images: Tensor, target: Tensor) -> Tensor:
    """Give how near (K, C, H, W) images are to targets, (C, H, W) or one each: (K,), where they are.

    1 is the same in its coarse structure. It is one minus the root mean square distance at 16 × 16 cells, in units of
    half the range from black to white.
    """
    return (1 - _distance(images, target).sqrt()).clamp(min=0)


def demerits(
    denoiser: Denoiser, images: Tensor, target: Tensor, *, rows: int, wholeness: Wholeness | None = None
) -> Tensor:
    """Give the scores (K,) by which images of one target are ranked, lower is better, where they are.

    It is made of two z-scores over the K images: of how broken an image looks (`ddpm_core.wholeness`), and, a quarter
    as heavy, of ln of the mean squared distance to the target at 16 × 16 cells. Without statistics of the former the
    distance decides alone.

    Args:
        denoiser: the model; called once for every image, if at all.
        images: (K, C, H, W), finished.
        target: (C, H, W).
        rows: images in one network call.
        wholeness: the bundle's statistics.
    """
    far = _z(_distance(images, target).clamp(min=1e-12).log())
    found = None if wholeness is None else features(denoiser, images, rows=rows)
    return far if wholeness is None or found is None else _NEARNESS * far - _z(score(wholeness, found))


def _distance(images: Tensor, target: Tensor) -> Tensor:
    return low_pass(images.clamp(-1, 1) - target, _CELLS).square().flatten(1).mean(1)


def _z(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std().clamp(min=1e-6)
