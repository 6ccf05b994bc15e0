"""Which features are compared, and what the figures in them may be called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm_core.bundle import sha256
from ddpm_core.evaluation import wavelets
from ddpm_core.evaluation.figures import FeatureSet, Figures
from ddpm_core.evaluation.inception import read_inception

_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Extractor:
    """A feature space.

    Attributes:
        name: of the features.
        version: of the features: a number, or the SHA-256 of the network's file.
        run: (B, H, W, 3) uint8 → (B, D) float32.
        substitute: the figures are not those of the papers, and are not called by their names.
        device: where it runs.
    """

    name: str
    version: str
    run: Callable[[Tensor], Tensor]
    substitute: bool
    device: torch.device

    @torch.inference_mode()
    def __call__(self, pixels: NDArray[np.uint8]) -> Tensor:
        """(N, H, W, 3) uint8 → (N, D) float32 on the device."""
        batches = (pixels[start : start + _AT_ONCE] for start in range(0, len(pixels), _AT_ONCE))
        return torch.cat([self.run(torch.from_numpy(np.ascontiguousarray(b)).to(self.device)) for b in batches])


def wavelet_extractor(device: torch.device | str = "cpu") -> Extractor:
    """Make the extractor that needs no download."""
    return Extractor(wavelets.NAME, str(wavelets.VERSION), wavelets.wavelet_statistics, True, torch.device(device))


def inception_extractor(file: Path, device: torch.device | str = "cpu") -> Extractor:
    """Make the extractor of FID and KID from the network's file; see `ddpm_core.evaluation.inception`."""
    run = read_inception(file, device)
    return Extractor("inception-2015-12-05", sha256(file), run, False, torch.device(device))


class Yardstick:
    """A measure of sets of images, against one reference.

    Substitute features are of different units, so each is counted in standard deviations of the reference; those of the
    Inception network are taken as they are, as the papers do.

    Args:
        reference: (N, D) features of the reference.
        substitute: they are not those of the Inception network.
    """

    def __init__(self, reference: Tensor, *, substitute: bool) -> None:
        self._substitute = substitute
        self._centre, self._scale = torch.zeros(()), torch.ones(())
        if substitute:
            self._centre = reference.mean(0)
            self._scale = reference.std(0).clamp(min=1e-3)
        self._reference = self._set(reference)

    def measure(self, features: Tensor) -> dict[str, float]:
        """Give the figures of (N, D) features of samples by their honest names."""
        figures = self._reference.compare(self._set(features))
        return {_called(name, self._substitute): value for name, value in asdict(figures).items()}

    def _set(self, features: Tensor) -> FeatureSet:
        return FeatureSet((features - self._centre.to(features)) / self._scale.to(features))


def prefixed(space: str, figures: dict[str, float]) -> dict[str, float]:
    """Name substitute figures by their features: they are those of no paper."""
    return {f"{space}_{name.replace('_substitute', '')}": value for name, value in figures.items()}


def names(substitute: bool) -> list[str]:
    """Give the names of all figures in their order."""
    return [_called(name, substitute) for name in Figures.__dataclass_fields__]


def _called(name: str, substitute: bool) -> str:
    """FID and KID are names of distances in Inception's features alone."""
    if not substitute:
        return "fid" if name == "frechet" else name
    head, _, tail = name.partition("_")
    return f"{head}_substitute" + (f"_{tail}" if tail else "")
