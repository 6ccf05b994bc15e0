"""How like its target an image is, in numbers that need no network."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ddpm_core.guidance import low_pass
from ddpm_core.pixels import to_tensor

_WINDOW = 11
_SIGMA = 1.5


def low_pass_distance(images: NDArray[np.uint8], targets: NDArray[np.uint8], cells: int) -> NDArray[np.float64]:
    """Give the root mean square difference, in [−1, 1], of what is left at `cells` × `cells` cells.

    Args:
        images: (N, H, H, 3) uint8.
        targets: (N, H, H, 3) uint8, one an image.
        cells: a side.

    Returns:
        (N,), 0 when equal.
    """
    difference = low_pass(_tensors(images) - _tensors(targets), cells)
    return np.asarray(difference.double().square().flatten(1).mean(1).sqrt().numpy(), np.float64)


def ssim(images: NDArray[np.uint8], targets: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Give the structural similarity of luma (Wang et al. 2004: Gaussian window of 11, σ 1.5): (N,), 1 when equal."""
    x, y = (_tensors(pixels, channels=1).double() for pixels in (images, targets))
    window = min(_WINDOW, x.shape[-1] - 1 + x.shape[-1] % 2)
    at = torch.arange(window, dtype=torch.float64) - window // 2
    line = torch.exp(-at.square() / (2 * _SIGMA**2))
    kernel = torch.outer(line, line)[None, None] / line.sum() ** 2

    def mean(v: Tensor) -> Tensor:
        return F.conv2d(v, kernel)

    c1, c2 = ((k * 2) ** 2 for k in (0.01, 0.03))  # the range of values is 2
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    similar = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return np.asarray(similar.flatten(1).mean(1).numpy(), np.float64)


def cosine(features: Tensor, others: Tensor) -> NDArray[np.float64]:
    """Give the cosine of features (N, D) to others (N, D), one each: (N,) −1..1."""
    return np.asarray(F.cosine_similarity(features.double(), others.double()).cpu().numpy(), np.float64)


def _tensors(pixels: NDArray[np.uint8], channels: int = 3) -> Tensor:
    return torch.stack([to_tensor(picture, channels) for picture in pixels])
