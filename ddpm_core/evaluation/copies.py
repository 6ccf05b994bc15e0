"""Copy check: the nearest training image of every sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ddpm_core.errors import InvalidInput

_SIDE = 32
_REAL = 1000
_CHUNK = 2048


@dataclass(frozen=True)
class Copies:
    """The nearest reference image of every sample.

    Distances are root mean squares in grey levels (0..255) at 32 px, where the grain of a picture no longer counts;
    mirrored images count too, for training mirrors.

    Attributes:
        nearest: (N,) index into the reference.
        mirrored: (N,) the nearest is the mirrored image.
        distances: (N,) to it.
        real_distances: of up to 1000 reference images to their nearest others: what is usual among different pictures.
    """

    nearest: NDArray[np.int64]
    mirrored: NDArray[np.bool_]
    distances: NDArray[np.float64]
    real_distances: NDArray[np.float64]

    @property
    def threshold(self) -> float:
        """Nearer than this are only 1 % of the reference images to another."""
        return float(np.quantile(self.real_distances, 0.01))

    @property
    def suspicious(self) -> float:
        """Share of samples below the threshold: about 0.01 or less when nothing is copied."""
        return float((self.distances < self.threshold).mean())


def find_copies(samples: NDArray[np.uint8], reference: NDArray[np.uint8]) -> Copies:
    """Find the nearest of `reference`, (M, H, W, 3) uint8, to each of `samples`, (N, H, W, 3) uint8.

    Raises:
        InvalidInput: pictures of different sizes, or fewer than two to compare with.
    """
    if samples.shape[1:] != reference.shape[1:]:
        size, other = ("×".join(map(str, pixels.shape[1:3])) for pixels in (samples, reference))
        message = f"Samples of {size} cannot be compared with images of {other}."
        raise InvalidInput("sizes_differ", message, field="reference", given=other, allowed=size)
    if len(reference) < 2:
        raise InvalidInput("too_few_images", "A copy check needs at least 2 reference images.", field="reference")
    known = coarse(reference)
    nearest, mirrored, distances = _nearest(coarse(samples), known)
    among = np.linspace(0, len(reference) - 1, min(_REAL, len(reference))).round().astype(np.int64)
    _, _, usual = _nearest(known[among], known, its_own=among)
    return Copies(nearest, mirrored, distances, usual)


def coarse(pixels: NDArray[np.uint8]) -> Tensor:
    """(N, H, W, 3) uint8 → (N, 3, 32, 32) float32, averaged; smaller pictures as they are."""
    side = min(_SIDE, pixels.shape[1])
    parts = (
        F.adaptive_avg_pool2d(torch.from_numpy(pixels[i : i + _CHUNK].copy()).permute(0, 3, 1, 2).float(), side)
        for i in range(0, len(pixels), _CHUNK)
    )
    return torch.cat(list(parts))


def _nearest(
    x: Tensor, known: Tensor, its_own: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.float64]]:
    """Give index, whether mirrored, and distance of the nearest of `known`, or of `known` but for its own."""
    best = torch.full((len(x),), torch.inf)
    index = torch.zeros(len(x), dtype=torch.int64)
    mirrored = torch.zeros(len(x), dtype=torch.bool)
    rows = torch.arange(len(x)) if its_own is None else torch.from_numpy(its_own)
    for flip in (False, True):
        points = (x.flip(-1) if flip else x).flatten(1)
        for start in range(0, len(known), _CHUNK):
            distances = torch.cdist(points, known[start : start + _CHUNK].flatten(1))
            if its_own is not None:
                here = (rows >= start) & (rows < start + distances.shape[1])
                distances[here.nonzero()[:, 0], rows[here] - start] = torch.inf
            values, where = distances.min(1)
            closer = values < best
            best[closer], index[closer], mirrored[closer] = values[closer], where[closer] + start, flip
    return index.numpy(), mirrored.numpy(), (best.double() / x[0].numel() ** 0.5).numpy()
