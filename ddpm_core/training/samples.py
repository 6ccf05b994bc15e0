"""Sample grids of a network in training: the same seeds every time, so that progress can be seen."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddpm_core.denoiser import Denoiser, Prediction
from ddpm_core.pixels import to_pixels
from ddpm_core.sampling import SampleState, dpmpp_2m, noise, sample
from ddpm_core.schedule import NoiseSchedule

CALLS = 25
_AT_ONCE = 64


def draw(
    network: nn.Module,
    schedule: NoiseSchedule,
    prediction: Prediction,
    shape: tuple[int, int, int],
    seeds: Sequence[int],
    *,
    patch: int = 1,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> NDArray[np.uint8]:
    """Sample one image a seed, unguided, and give them as one grid, (H, W, 3) uint8; the network is left as it is."""
    denoiser = Denoiser(copy.deepcopy(network), schedule, prediction, patch=patch, device=device, dtype=dtype)
    table = dpmpp_2m(schedule, schedule.karras(schedule.num_levels, min(CALLS, schedule.num_levels)))
    images: list[Tensor] = []
    for start in range(0, len(seeds), _AT_ONCE):
        states = [SampleState(table, s, noise(s, 0, shape).to(device)) for s in seeds[start : start + _AT_ONCE]]
        images.extend(sample(denoiser, states).cpu())
    return contact_sheet([to_pixels(image) for image in images])


def contact_sheet(pictures: Sequence[NDArray[np.uint8]], gap: int = 2) -> NDArray[np.uint8]:
    """Lay pictures of one size, (H, W, 3), out on a white sheet about as wide as high."""
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    height, width = pictures[0].shape[:2]
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = i // columns * (height + gap), i % columns * (width + gap)
        sheet[y : y + height, x : x + width] = picture
    return sheet
