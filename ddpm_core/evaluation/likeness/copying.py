"""Is an image merely its target? Compared with what different photographs of one person have in common.

Only detail tells. Pose, light and colour are coarse, and guidance takes them over on purpose; a photograph that was
darkened is still that photograph.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ddpm_core.data.images import ImageSet
from ddpm_core.data.split import groups
from ddpm_core.errors import InvalidInput
from ddpm_core.guidance import detail
from ddpm_core.pixels import to_tensor

_NEAREST = 0.01


def distances(images: NDArray[np.uint8], targets: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Give how far the detail of each image is from that of its target, mirrored or not.

    Args:
        images: (N, H, H, 3) uint8.
        targets: (N, H, H, 3) uint8, one an image.

    Returns:
        (N,) 1 − correlation of what luma shows beyond 16 cells: 0 of a copy, 1 of pictures that share none.
    """
    x = _detail(images)
    straight, mirrored = ((x * _detail(other)).sum(1) for other in (targets, targets[:, :, ::-1]))
    return np.asarray(1 - torch.maximum(straight, mirrored).numpy(), np.float64)


def threshold(photographs: ImageSet, person_pattern: str) -> float:
    """Give the distance below which lie 1 % of the photographs to the nearest other photograph of their person.

    Args:
        photographs: several of some persons; equal files count once.
        person_pattern: regular expression on the path; its first group names the person.

    Raises:
        InvalidInput: no person has two photographs.
    """
    persons: dict[str, dict[str, int]] = defaultdict(dict)
    for i, group in enumerate(groups(photographs.names, photographs.digests, person_pattern)):
        persons[group].setdefault(photographs.digests[i], i)
    nearest = [_nearest(photographs.pixels[sorted(images.values())]) for images in persons.values() if len(images) > 1]
    if not nearest:
        message = (
            "No person has two photographs in the reference, so that copies cannot be told: give --person-pattern."
        )
        raise InvalidInput("no_persons", message, field="person_pattern", given=person_pattern)
    return float(np.quantile(np.concatenate(nearest), _NEAREST))


def _nearest(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Give for each of one person's photographs the distance to the nearest other, mirrored or not."""
    x = _detail(pixels)
    alike = torch.maximum(x @ x.T, x @ _detail(pixels[:, :, ::-1]).T)
    alike.fill_diagonal_(-1)
    return np.asarray(1 - alike.max(1).values.numpy(), np.float64)


def _detail(pixels: NDArray[np.uint8]) -> Tensor:
    """(N, H, H, 3) → (N, pixels) float64 of length 1."""
    images = torch.stack([to_tensor(each) for each in pixels]).double()
    return F.normalize(detail(images).flatten(1), dim=1)
