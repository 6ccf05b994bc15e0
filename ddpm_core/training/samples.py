"""Sample grids of a network in training: the same seeds every time, so that progress can be seen."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ddpm_core.bundle import Bundle
from ddpm_core.denoiser import make_ready
from ddpm_core.evaluation.draw import draw


def grid(
    bundle: Bundle,
    network: nn.Module,
    seeds: Sequence[int],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    guide: nn.Module | None = None,
) -> NDArray[np.uint8]:
    """Sample one image a seed, unguided, and give them as one grid, (H, W, 3) uint8; the network is left as it is.

    Args:
        bundle: what the network is: how it will be served is how it is sampled here.
        network: in training.
        seeds: one an image.
        device: where to sample.
        dtype: the network's precision while sampling.
        guide: of a bundle that has one.
    """
    ready, worse = (
        None if each is None else make_ready(copy.deepcopy(each), device, dtype) for each in (network, guide)
    )
    assert ready is not None
    return contact_sheet(draw(bundle, bundle.denoiser(ready, device, dtype, worse), seeds))


def contact_sheet(pictures: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], gap: int = 2) -> NDArray[np.uint8]:
    """Lay pictures of one size, (H, W, 3), out on a white sheet about as wide as high."""
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    height, width = pictures[0].shape[:2]
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = i // columns * (height + gap), i % columns * (width + gap)
        sheet[y : y + height, x : x + width] = picture
    return sheet
