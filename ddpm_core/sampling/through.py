"""The tick of pixel guidance whose gradient goes through the network, as in the course's other variant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ddpm_core.denoiser import Denoiser
from ddpm_core.guidance import pixel_displacement_through
from ddpm_core.sampling.state import Batch
from ddpm_core.sampling.tick import advance


def advance_through_network(denoiser: Denoiser, batch: Batch) -> Batch:
    """Advance as `advance` does, with the gradient of pixel guidance through the network.

    It costs a second call and its gradient: too slow and too hungry to serve.

    Args:
        denoiser: the network.
        batch: none of its images done, all with a target.
    """
    unguided = tuple(
        image._replace(table=replace(image.table, pixel=np.zeros(len(image.table)))) for image in batch.images
    )
    advanced = advance(denoiser, replace(batch, images=unguided))
    tables = [(image.table, k) for image, k in zip(batch.images, batch.positions, strict=True)]
    levels = [int(table.levels[k]) for table, k in tables]
    numbers = np.array([(table.pixel[k], table.shift[k]) for table, k in tables])
    step, shift = torch.tensor(numbers.T, dtype=batch.x.dtype, device=batch.x.device)
    level = torch.tensor(levels, device=batch.x.device)
    signal = torch.tensor(denoiser.schedule.alpha_bar[levels] ** 0.5).to(batch.x)
    delta = pixel_displacement_through(lambda x: denoiser(x, level), batch.x, batch.target, step, signal)
    return replace(advanced, images=batch.images, x=advanced.x + shift.view(-1, 1, 1, 1) * delta)
