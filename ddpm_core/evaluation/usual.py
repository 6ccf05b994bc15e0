"""What is usual for a model: the statistics of its gate and its tone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from ddpm_core.bundle import Statistics
from ddpm_core.errors import InvalidInput
from ddpm_core.gate import denoising_errors, fit
from ddpm_core.pipeline import Pipeline
from ddpm_core.pixels import to_tensor
from ddpm_core.tone import tone_of

MIN_IMAGES = 64
_AT_ONCE = 16


def usual(
    pipeline: Pipeline,
    pixels: NDArray[np.uint8],
    source: str,
    on_images: Callable[[int], object] = lambda _: None,
) -> Statistics:
    """Look at typical pictures, as the gate will look at a target.

    Args:
        pipeline: the model.
        pixels: (N, H, W, 3) uint8 at the model's size: real ones of its kind, best those that training has not seen;
            or its own samples, by which every real picture looks stranger than it is while the model is weak.
        source: which pictures these are, for whoever reads the statistics.
        on_images: called with how many images have been looked at since the last call.

    Raises:
        InvalidInput: too few pictures.
    """
    if len(pixels) < MIN_IMAGES:
        message = f"The gate's statistics need at least {MIN_IMAGES} pictures, there are {len(pixels)}."
        raise InvalidInput(
            "too_few_images", message, field="num_images", given=len(pixels), allowed=f"{MIN_IMAGES} or more"
        )
    images = torch.stack([to_tensor(image, pipeline.bundle.manifest.channels) for image in pixels])
    errors = []
    for part in torch.split(images, _AT_ONCE):
        errors.append(denoising_errors(pipeline.denoiser, part, rows=_AT_ONCE))
        on_images(len(part))
    model, plain = (torch.cat(column).cpu() for column in zip(*errors, strict=True))
    return Statistics(gate=fit(model, plain, source), tone=tone_of(images))
