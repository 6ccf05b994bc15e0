"""What is usual for a model: the statistics of its gate, its tone, and best of K."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from ddpm_core import wholeness
from ddpm_core.bundle import Bundle, Statistics, Wholeness
from ddpm_core.errors import InvalidInput
from ddpm_core.evaluation.draw import finish
from ddpm_core.gate import Judgement, denoising_errors, fit
from ddpm_core.pipeline import Pipeline
from ddpm_core.pixels import to_tensor
from ddpm_core.plan import Mode, make_plan
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
    images = _tensors(pixels, pipeline.bundle)
    errors = []
    for part in torch.split(images, _AT_ONCE):
        errors.append(denoising_errors(pipeline.denoiser, part, rows=_AT_ONCE))
        on_images(len(part))
    model, plain = (torch.cat(column).cpu() for column in zip(*errors, strict=True))
    return Statistics(gate=fit(model, plain, source), tone=tone_of(images))


def likenesses(
    pipeline: Pipeline, pixels: NDArray[np.uint8], on_images: Callable[[int], object] = lambda _: None
) -> NDArray[np.uint8]:
    """Make a guided picture of each of (N, H, W, 3) uint8, as mode `celebrity` does."""
    seen = Judgement(has_face=True)
    plans = (
        make_plan(pipeline.bundle, target, judgement=seen, mode=Mode.CELEBRITY, seed=i)
        for i, target in enumerate(pixels)
    )
    return finish(pipeline.denoiser, (state for plan in plans for state in plan.start()), on_images)


def direction(pipeline: Pipeline, real: NDArray[np.uint8], made: NDArray[np.uint8], source: str) -> Wholeness | None:
    """Find what best of K goes by where nobody has judged faces; None where the network has no features for it.

    Args:
        pipeline: the model.
        real: (N, H, W, 3) uint8, photographs; they stand for broken faces.
        made: what `likenesses` made of them, one each.
        source: which photographs these are.
    """
    count = len(real)
    found = features_of(pipeline, np.concatenate([real, made]))
    if found is None:
        return None
    return wholeness.fit(found, torch.arange(2 * count) < count, torch.arange(count).repeat(2), source)


def features_of(
    pipeline: Pipeline, pixels: NDArray[np.uint8], on_images: Callable[[int], object] = lambda _: None
) -> torch.Tensor | None:
    """Give the features (N, D) of (N, H, W, 3) uint8 that best of K goes by, on the CPU; None where there are none."""
    found = []
    for start in range(0, len(pixels), _AT_ONCE):
        part = _tensors(pixels[start : start + _AT_ONCE], pipeline.bundle)
        seen = wholeness.features(pipeline.denoiser, part, rows=_AT_ONCE)
        if seen is None:
            return None
        found.append(seen.cpu())
        on_images(len(part))
    return torch.cat(found)


def _tensors(pixels: NDArray[np.uint8], bundle: Bundle) -> torch.Tensor:
    return torch.stack([to_tensor(image, bundle.manifest.channels) for image in pixels])
