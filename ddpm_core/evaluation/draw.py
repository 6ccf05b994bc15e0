"""Samples to measure: the served step, in batches as large as the device likes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ddpm_core.pipeline import Pipeline
from ddpm_core.pixels import to_pixels
from ddpm_core.sampling import Sampler, SampleState, advance, build, noise

_AT_ONCE = {"cpu": 16}
_AT_ONCE_ELSEWHERE = 256


def draw(
    pipeline: Pipeline,
    sampler: Sampler,
    num_inference_steps: int,
    seeds: Sequence[int],
    on_images: Callable[[int], object] | None = None,
) -> NDArray[np.uint8]:
    """Make one unguided image a seed.

    Args:
        pipeline: the model.
        sampler: from noise to picture; DDIM with η = 0.
        num_inference_steps: network calls, 1..T.
        seeds: one an image.
        on_images: called with how many images a batch has added.

    Returns:
        (N, H, W, 3) uint8; a grey model's three channels are equal.
    """
    schedule = pipeline.denoiser.schedule
    table = build(sampler, schedule, schedule.karras(schedule.num_levels, num_inference_steps))
    shape = pipeline.bundle.shape
    return finish(pipeline, (SampleState(table, seed, noise(seed, 0, shape)) for seed in seeds), on_images)


def finish(
    pipeline: Pipeline, states: Iterable[SampleState], on_images: Callable[[int], object] | None = None
) -> NDArray[np.uint8]:
    """Carry out states that have equally many calls left, whatever else differs: (N, H, W, 3) uint8, in their order."""
    denoiser = pipeline.denoiser
    size = _AT_ONCE.get(denoiser.device.type, _AT_ONCE_ELSEWHERE)
    pictures: list[NDArray[np.uint8]] = []
    coming = iter(states)
    while batch := [state.to(denoiser.device) for state in islice(coming, size)]:
        while not batch[0].done:
            batch = advance(denoiser, batch)
        pictures.extend(to_pixels(state.x) for state in batch)
        if on_images:
            on_images(len(batch))
    return np.stack(pictures)
