"""Is an image merely its target? Compared with what different photographs of one person have in common."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from numpy.typing import NDArray

from ddpm_core.data.images import ImageSet
from ddpm_core.data.split import groups
from ddpm_core.errors import InvalidInput
from ddpm_core.evaluation.copies import coarse

_NEAREST = 0.01


def distances(images: NDArray[np.uint8], targets: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Give how far each image is from its target, mirrored or not: (N,) root mean square in grey levels at 32 px.

    Args:
        images: (N, H, W, 3) uint8.
        targets: (N, H, W, 3) uint8, one an image.
    """
    x, y = coarse(images), coarse(targets)
    straight, mirrored = ((x - other).double().square().flatten(1).mean(1) for other in (y, y.flip(-1)))
    return np.asarray(torch.minimum(straight, mirrored).sqrt().numpy(), np.float64)


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
    x = coarse(pixels)
    pairs = torch.minimum(*(torch.cdist(x.flatten(1), other.flatten(1)) for other in (x, x.flip(-1))))
    pairs.fill_diagonal_(torch.inf)
    return np.asarray(pairs.min(1).values.double().numpy() / x[0].numel() ** 0.5, np.float64)
