"""A batch may mix everything; a row never notices what shares its call."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddpm_core.bundle import Bundle
from ddpm_core.denoiser import Denoiser
from ddpm_core.pixels import to_pixels
from ddpm_core.plan import Plan, make_plan
from ddpm_core.sampling import advance, noise, sample


def mixed_plans(bundle: Bundle, target: np.ndarray) -> list[Plan]:
    """Rows that differ in noise level, sampler, guidance, step count and seed."""
    flipped = target[:, ::-1].copy()
    return [
        make_plan(bundle, seed=1, sampler="ddpm", num_inference_steps=7),
        make_plan(bundle, seed=2, sampler="ddim", num_inference_steps=3),
        make_plan(bundle, seed=3, sampler="ddim", eta=0.6, num_inference_steps=11),
        make_plan(bundle, seed=4, sampler="dpmpp_2m", num_inference_steps=5),
        make_plan(bundle, target, seed=5, mode="likeness"),
        make_plan(bundle, flipped, seed=6, mode="celebrity", num_inference_steps=4),
        make_plan(bundle, target, seed=7, mode="faithful", sampler="ddpm"),
        make_plan(bundle, flipped, seed=8, mode="pixel", num_inference_steps=6),
        make_plan(bundle, target, seed=9, resemblance=0.1, num_inference_steps=9),
    ]


def test_a_row_alone_equals_the_same_row_in_a_mixed_batch(
    tiny_denoiser: Denoiser, tiny_bundle: Bundle, target: np.ndarray
) -> None:
    states = [state for plan in mixed_plans(tiny_bundle, target) for state in plan.start()]
    together = sample(tiny_denoiser, states)
    for state, mixed in zip(states, together, strict=True):
        (alone,) = sample(tiny_denoiser, [state])
        assert torch.allclose(alone, mixed, atol=1e-5)
        assert np.abs(to_pixels(alone).astype(int) - to_pixels(mixed)).max() <= 1


def test_a_row_that_joins_late_ends_the_same(tiny_denoiser: Denoiser, tiny_bundle: Bundle, target: np.ndarray) -> None:
    first, second = (state for plan in mixed_plans(tiny_bundle, target)[3:5] for state in plan.start())
    (expected,) = sample(tiny_denoiser, [second])
    for _ in range(3):
        (first,) = advance(tiny_denoiser, [first])
    assert torch.allclose(sample(tiny_denoiser, [first, second])[1], expected, atol=1e-5)


def test_image_i_of_a_request_is_the_image_of_seed_plus_i(tiny_denoiser: Denoiser, tiny_bundle: Bundle) -> None:
    several = make_plan(tiny_bundle, seed=2**32 - 2, num_images=3, num_inference_steps=4)
    assert several.seeds == (2**32 - 2, 2**32 - 1, 0)
    images = sample(tiny_denoiser, several.start())
    alone = make_plan(tiny_bundle, seed=0, num_inference_steps=4)
    (expected,) = sample(tiny_denoiser, alone.start())
    assert torch.allclose(images[2], expected, atol=1e-5)


def test_noise_depends_on_seed_and_position_alone() -> None:
    assert torch.equal(noise(7, 3, (3, 4, 4)), noise(7, 3, (3, 4, 4)))
    assert not torch.equal(noise(7, 3, (3, 4, 4)), noise(7, 4, (3, 4, 4)))
    assert not torch.equal(noise(7, 3, (3, 4, 4)), noise(8, 3, (3, 4, 4)))
    for seed, position in ((-1, 0), (2**32, 0), (0, -1), (0, 65536)):
        with pytest.raises(ValueError, match="out of range"):
            noise(seed, position, (1,))


def test_every_bit_of_the_seed_counts_and_small_seeds_keep_their_noise() -> None:
    seeds = (7, *(7 + 2**bit for bit in range(3, 32)), 2**32 - 1)
    drawn = {tuple(noise(seed, 1, (4,)).tolist()) for seed in seeds}
    assert len(drawn) == len(seeds)
    for seed, position in ((0, 0), (7, 3), (65535, 65535)):
        expected = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(seed * 65536 + position))
        assert torch.equal(noise(seed, position, (3, 4, 4)), expected)
