"""Samples to measure or to look at: the served step, in batches as large as the device likes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ddpm_core.bundle import Bundle
from ddpm_core.denoiser import Denoiser
from ddpm_core.pixels import to_pixels
from ddpm_core.plan import make_plan
from ddpm_core.sampling import Sampler, SampleState, sample

_AT_ONCE = {"cpu": 16}
_AT_ONCE_ELSEWHERE = 256


def draw(
    bundle: Bundle,
    denoiser: Denoiser,
    seeds: Sequence[int],
    *,
    sampler: Sampler | None = None,
    num_inference_steps: int | None = None,
    on_images: Callable[[int], object] | None = None,
) -> NDArray[np.uint8]:
    """Make one unguided image a seed.

    Args:
        bundle: what is planned for.
        denoiser: its network.
        seeds: one an image.
        sampler: from noise to picture, DDIM with η = 0; as `make_plan` chooses unless said.
        num_inference_steps: network calls, 1..T; the bundle's default unless said.
        on_images: called with how many images a batch has added.

    Returns:
        (N, H, W, 3) uint8; a grey model's three channels are equal.
    """
    plans = (make_plan(bundle, sampler=sampler, num_inference_steps=num_inference_steps, seed=seed) for seed in seeds)
    return finish(denoiser, (state for plan in plans for state in plan.start()), on_images)


def finish(
    denoiser: Denoiser, states: Iterable[SampleState], on_images: Callable[[int], object] | None = None
) -> NDArray[np.uint8]:
    """Carry out states, whatever differs among them but their shape: (N, H, W, 3) uint8, in their order."""
    size = _AT_ONCE.get(denoiser.device.type, _AT_ONCE_ELSEWHERE)
    pictures: list[NDArray[np.uint8]] = []
    coming = iter(states)
    while batch := list(islice(coming, size)):
        pictures.extend(to_pixels(image) for image in sample(denoiser, batch))
        if on_images:
            on_images(len(batch))
    return np.stack(pictures)
