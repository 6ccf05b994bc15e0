"""A batch may mix everything; a row never notices what shares its call."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ddpm_core.bundle import Bundle
from ddpm_core.denoiser import Denoiser, Prediction
from ddpm_core.pixels import to_pixels
from ddpm_core.plan import Plan, make_plan
from ddpm_core.sampling import Batch, advance, noise, noise_key, noises, sample


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
        make_plan(bundle, flipped, seed=10, mode="celebrity", sampler="lcm", num_inference_steps=6),
        make_plan(bundle, seed=11, sampler="lcm", num_inference_steps=8),
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


class PixelByPixel(nn.Module):
    """A network without sums: to the last bit the same, whatever shares its call."""

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return torch.tanh(x) + 0.1 * torch.sin(timestep.to(x.dtype) / 50).view(-1, 1, 1, 1)


def test_beside_the_network_it_is_equal_to_the_last_bit(tiny_bundle: Bundle, target: np.ndarray) -> None:
    worse = Denoiser(PixelByPixel(), tiny_bundle.schedule, Prediction.V)
    denoiser = Denoiser(PixelByPixel(), tiny_bundle.schedule, Prediction.EPSILON, guide=worse)
    plans = mixed_plans(tiny_bundle, target)
    plans.append(replace(plans[0], table=replace(plans[0].table, guide=np.array([0, 0.6, 0.6, 0, 0.6, 0.6, 0]))))
    states = [state for plan in plans for state in plan.start()]
    together = sample(denoiser, states)
    for state, mixed in zip(states, together, strict=True):
        assert torch.equal(sample(denoiser, [state])[0], mixed)


def test_a_call_in_a_pair_predicts_the_mean_of_what_is_seen_through_opposite_noises(
    tiny_denoiser: Denoiser, tiny_bundle: Bundle, target: np.ndarray
) -> None:
    plan = make_plan(tiny_bundle, target, seed=5, mode="likeness", sampler="lcm", num_inference_steps=4)
    plain = replace(plan.table, weight=np.zeros(4), apart=np.zeros(4))
    (state,) = replace(plan, table=plain).start()
    for k in range(4):
        signal = tiny_bundle.schedule.alpha_bar[plain.levels[k]]
        clean = state.x - np.sqrt(1 - signal) * noise(5, k, plan.shape)
        seen = [clean + np.sqrt(1 - signal) * sign * noise(5, k, plan.shape) for sign in (1, -1)]
        level = torch.full((2,), int(plain.levels[k]))
        predicted = tiny_denoiser(torch.stack(seen).float(), level)
        expected = tiny_denoiser.clip(predicted.mean(0, keepdim=True) if plain.antithetic[k] else predicted[:1])
        (state,) = advance(tiny_denoiser, Batch.of([state]))
        assert torch.allclose(state.x0_prev, expected[0], atol=1e-5)
    assert np.count_nonzero(plain.antithetic) == np.count_nonzero(plan.cost(0) == 2) >= 2


def test_a_row_that_joins_late_ends_the_same(tiny_denoiser: Denoiser, tiny_bundle: Bundle, target: np.ndarray) -> None:
    first, second = (state for plan in mixed_plans(tiny_bundle, target)[3:5] for state in plan.start())
    (expected,) = sample(tiny_denoiser, [second])
    batch = Batch.of([first])
    for _ in range(3):
        batch = advance(tiny_denoiser, batch)
    (first,) = batch
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


def test_noise_of_many_images_is_that_of_each() -> None:
    places = [(7, 3), (2**32 - 1, 65535), (7, 4)]
    together = noises(torch.tensor([noise_key(*place) for place in places]), (3, 5, 5))
    assert all(torch.equal(z, noise(*place, (3, 5, 5))) for z, place in zip(together, places, strict=True))


def test_every_bit_of_the_seed_counts() -> None:
    seeds = (7, *(7 + 2**bit for bit in range(3, 32)), 2**32 - 1)
    drawn = {tuple(noise(seed, 1, (4,)).tolist()) for seed in seeds}
    assert len(drawn) == len(seeds)


def test_noise_is_splitmix64_through_quantiles() -> None:
    """Against whole numbers of Python's own and the normal distribution of its library."""

    def mixed(z: int) -> int:
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    seed, position = 3_000_000_019, 41
    state = mixed(seed * 65536 + position)
    words = [mixed((state + i * 0x9E3779B97F4A7C15) % 2**64) for i in (1, 2)]
    parts = [word >> shift & 0xFFFF for word in words for shift in (0, 16, 32, 48)]
    shares = [((part + 2**15) % 2**16 + 0.5) / 2**16 for part in parts]  # the table begins with the negative numbers
    expected = torch.tensor([NormalDist().inv_cdf(share) for share in shares])
    assert torch.allclose(noise(seed, position, (8,)), expected, rtol=2e-5)


def test_noise_is_standard_normal_and_images_do_not_resemble_each_other() -> None:
    z = noises(torch.tensor([noise_key(seed, 1) for seed in range(64)]), (12_288,)).double()
    assert abs(z.mean()) < 0.005
    assert abs(z.var() - 1) < 0.01
    assert abs(z.pow(4).mean() - 3) < 0.05
    normal = NormalDist()
    for limit in (-3.0, -1.0, 0.5, 2.0, 4.0):
        share = normal.cdf(limit)
        assert abs((z < limit).double().mean() - share) < 4 * (share * (1 - share) / z.numel()) ** 0.5
    assert (torch.corrcoef(z) - torch.eye(64)).abs().max() < 0.05
    assert (torch.corrcoef(z.view(-1, 4).T) - torch.eye(4)).abs().max() < 0.01
