"""Distances between two sets of images in a feature space, and how much of each set the other covers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

BLOCKS = 10
"""Blocks of images that the standard error of the kernel distance is taken over."""
MIN_IMAGES = 2 * BLOCKS
_NEIGHBOURS = 3
_ROWS = 4096


@dataclass(frozen=True)
class Figures:
    """How far samples are from a reference.

    Attributes:
        kid: kernel distance (Bińkowski et al. 2018): unbiased MMD² with the kernel (x·y/D + 1)³; 0 ± error when alike.
        kid_standard_error: of `kid`, by leaving out one of ten blocks of images at a time.
        frechet: Fréchet distance of the two Gaussians (Heusel et al. 2017); falls with the number of images.
        precision: share of samples that lie among the reference (Kynkäänniemi et al. 2019, 3 neighbours).
        recall: share of the reference that lies among the samples.
    """

    kid: float
    kid_standard_error: float
    frechet: float
    precision: float
    recall: float


class FeatureSet:
    """Features of one set of images, with what is costly to compute kept for the next comparison.

    Args:
        features: (N, D) float32, N ≥ MIN_IMAGES, in an order that says nothing.
    """

    def __init__(self, features: Tensor) -> None:
        if len(features) < MIN_IMAGES:
            raise ValueError(f"{len(features)} images are too few; {MIN_IMAGES} are needed")
        self.features = features
        self._radii: dict[int, Tensor] = {}

    def compare(self, samples: FeatureSet) -> Figures:
        """Measure `samples` against this set, the reference. Precision and recall take equally many of both."""
        kid, error = _mmd(self, samples)
        n = min(len(self.features), len(samples.features))
        return Figures(
            kid=kid,
            kid_standard_error=error,
            frechet=_frechet(self, samples),
            precision=_covered(samples.features[:n], self.features[:n], self.radii(n)),
            recall=_covered(self.features[:n], samples.features[:n], samples.radii(n)),
        )

    @cached_property
    def kernel_sums(self) -> Tensor:
        """(BLOCKS, BLOCKS) float64 sums of the kernel over pairs of different images."""
        sums = _kernel_sums(self.features, self.features)
        of_itself = ((self.features.double().square().mean(1) + 1) ** 3).tensor_split(BLOCKS)
        return sums - torch.stack([block.sum().cpu() for block in of_itself]).diag()

    @cached_property
    def gaussian(self) -> tuple[Tensor, Tensor]:
        """Mean (D,) and covariance (D, D), float64."""
        x = self.features.double()
        return x.mean(0), x.T.cov()

    def radii(self, n: int) -> Tensor:
        """(n,) distance of each of the first n images to its third nearest other."""
        if n not in self._radii:
            x = self.features[:n]
            nearest = [torch.cdist(rows, x).topk(_NEIGHBOURS + 1, largest=False).values[:, -1] for rows in _chunks(x)]
            self._radii[n] = torch.cat(nearest)
        return self._radii[n]


def _mmd(reference: FeatureSet, samples: FeatureSet) -> tuple[float, float]:
    """Give the unbiased MMD² of all images and its standard error, by the jackknife over blocks."""
    sums = (reference.kernel_sums, samples.kernel_sums, _kernel_sums(reference.features, samples.features))
    sizes = [
        torch.tensor([len(block) for block in s.features.tensor_split(BLOCKS)], dtype=torch.float64)
        for s in (reference, samples)
    ]

    def estimate(kept: list[int]) -> float:
        within_reference, within_samples, across = (float(s[kept][:, kept].sum()) for s in sums)
        n, m = (float(size[kept].sum()) for size in sizes)
        return within_reference / (n * (n - 1)) + within_samples / (m * (m - 1)) - 2 * across / (n * m)

    everything = list(range(BLOCKS))
    without = torch.tensor([estimate(everything[:b] + everything[b + 1 :]) for b in everything], dtype=torch.float64)
    variance = (BLOCKS - 1) / BLOCKS * (without - without.mean()).square().sum()
    return estimate(everything), float(variance.sqrt())


def _kernel_sums(x: Tensor, y: Tensor) -> Tensor:
    """Sum (x·y/D + 1)³ over each pair of blocks: (BLOCKS, BLOCKS) float64 on the CPU."""

    def total(a: Tensor, b: Tensor) -> float:
        return sum(float(((rows @ b.T / b.shape[1] + 1) ** 3).sum(dtype=torch.float64)) for rows in _chunks(a))

    return torch.tensor(
        [[total(a, b) for b in y.tensor_split(BLOCKS)] for a in x.tensor_split(BLOCKS)], dtype=torch.float64
    )


def _frechet(reference: FeatureSet, samples: FeatureSet) -> float:
    """|m − m'|² + tr(C + C' − 2√(CC')), with tr √(CC') = tr √(√C·C'·√C)."""
    (mean, cov), (its_mean, its_cov) = reference.gaussian, samples.gaussian
    values, vectors = torch.linalg.eigh(cov)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ its_cov @ root).clamp(min=0).sqrt().sum()
    return float((mean - its_mean).square().sum() + cov.trace() + its_cov.trace() - 2 * overlap)


def _covered(points: Tensor, centres: Tensor, radii: Tensor) -> float:
    """Give the share of `points` that lie within the radius of some centre."""
    inside = sum(int((torch.cdist(rows, centres) <= radii).any(1).sum()) for rows in _chunks(points))
    return inside / len(points)


def _chunks(x: Tensor) -> Iterator[Tensor]:
    yield from torch.split(x, _ROWS)
