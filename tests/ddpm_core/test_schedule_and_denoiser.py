"""Noise schedules and the one way to a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ddpm_core import schedule
from ddpm_core.denoiser import Denoiser, Prediction, fastest_dtype
from ddpm_core.errors import InvalidInput
from ddpm_core.schedule import NoiseSchedule

from .conftest import TinyNetwork


@pytest.mark.parametrize("made", [schedule.linear(), schedule.cosine(), schedule.linear(100, 0.001, 0.2)])
def test_level_nought_is_clean_and_noise_only_grows(made: NoiseSchedule) -> None:
    assert made.alpha_bar[0] == 1
    assert (np.diff(made.alpha_bar) < 0).all()
    assert made.sigma[0] == 0


def test_cosine_is_the_papers_cosine_below_the_cap() -> None:
    t = np.arange(1000) / 1000
    f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    assert np.allclose(schedule.cosine().alpha_bar[:-1], f / f[0], rtol=1e-9)


def test_one_noise_coordinate_makes_sizes_and_schedules_alike() -> None:
    """The same normalised σ gives the same noise per visible structure, whatever the schedule and size."""
    for made in (schedule.linear(), schedule.cosine()):
        for size in (64, 128, 256):
            for wanted in (0.52, 2.64, 6.2, 14.4):
                level = made.level_at(wanted, size)
                assert made.sigma_256(size)[level] == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rescale_betas_zero_snr", True),
        ("variance_type", "learned_range"),
        ("beta_schedule", "sigmoid"),
        ("prediction_type", "flow"),
    ],
)
def test_scheduler_settings_that_are_not_supported_are_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=key) as caught:
        schedule.from_diffusers({key: value})
    assert caught.value.given == value


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"beta_end": 1.0}, "zero terminal SNR"),
        ({"beta_schedule": "scaled_linear", "beta_end": 1}, "zero terminal SNR"),
        ({"trained_betas": [0.1, 0.5, 1.0]}, "zero terminal SNR"),
        ({"beta_start": 0}, "fall strictly"),
        ({"beta_schedule": "scaled_linear", "beta_start": -0.1}, "math"),
        ({"beta_end": float("inf")}, "fall strictly"),
        ({"trained_betas": []}, "fall strictly"),
        ({"trained_betas": "all"}, "'all'"),
        ({"num_train_timesteps": 0}, "fall strictly"),
        ({"num_train_timesteps": 0, "beta_schedule": "squaredcos_cap_v2"}, "fall strictly"),
        ({"num_train_timesteps": "many"}, "'many'"),
        ({"num_train_timesteps": float("inf")}, "infinity"),
        ({"beta_start": None}, "NoneType"),
    ],
)
def test_numbers_that_make_no_schedule_are_refused_with_what_is_allowed(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidInput, match=word) as caught:
        schedule.from_diffusers(settings)
    assert caught.value.code == "unsupported_scheduler"
    assert caught.value.allowed in caught.value.message


def test_every_prediction_type_gives_the_same_clean_image(cosine: NoiseSchedule) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, e = torch.rand(4, 3, 8, 8, generator=generator), torch.randn(4, 3, 8, 8, generator=generator)
    level = torch.tensor([1, 300, 700, 950])
    a = torch.tensor(cosine.alpha_bar)[level].float().view(-1, 1, 1, 1)
    x = a.sqrt() * x0 + (1 - a).sqrt() * e
    outputs = {
        Prediction.EPSILON: e,
        Prediction.V: a.sqrt() * e - (1 - a).sqrt() * x0,
        Prediction.SAMPLE: x0,
    }

    class Oracle(torch.nn.Module):
        def __init__(self, out: torch.Tensor) -> None:
            super().__init__()
            self.out = out

        def forward(self, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            assert timestep.tolist() == [0, 299, 699, 949]
            return self.out

    for prediction, out in outputs.items():
        assert torch.allclose(Denoiser(Oracle(out), cosine, prediction)(x, level), x0, atol=1e-4)


def test_a_patched_network_sees_blocks_of_pixels_as_channels(cosine: NoiseSchedule) -> None:
    seen = []

    class Watcher(TinyNetwork):
        def forward(self, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            seen.append(x.shape)
            return super().forward(x, timestep)

    denoiser = Denoiser(Watcher(12), cosine, Prediction.V, patch=2)
    assert denoiser(torch.randn(2, 3, 16, 16), torch.tensor([5, 500])).shape == (2, 3, 16, 16)
    assert seen == [(2, 12, 8, 8)]


def test_a_patched_network_draws_no_grid_on_the_picture(cosine: NoiseSchedule) -> None:
    """One pixel of each block set apart all over the image is taken out; the picture beneath stays as it is."""
    picture = F.interpolate(torch.randn(2, 3, 9, 9), size=(16, 16), mode="bilinear")
    picture -= _grid_of(picture)
    grid = torch.tensor([[0.1, -0.1], [-0.2, 0.2]]).repeat(8, 8)
    denoiser = Denoiser(Says(picture + grid), cosine, Prediction.SAMPLE, patch=2)
    predicted = denoiser(torch.randn(2, 3, 16, 16), torch.tensor([5, 500]))
    assert torch.allclose(predicted, picture, atol=1e-5)
    plain = Denoiser(Says(picture + grid, patch=1), cosine, Prediction.SAMPLE)
    assert torch.allclose(plain(picture, torch.tensor([5, 500])), picture + grid)


class Says(torch.nn.Module):
    """A network that predicts given images, whatever it sees."""

    def __init__(self, images: torch.Tensor, patch: int = 2) -> None:
        super().__init__()
        self.answer = F.pixel_unshuffle(images, patch)

    def forward(self, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return self.answer


def _grid_of(images: torch.Tensor) -> torch.Tensor:
    mean = torch.stack([images[:, :, i::2, j::2].mean((2, 3)) for i in (0, 1) for j in (0, 1)], -1)
    return F.pixel_shuffle((mean - mean.mean(-1, keepdim=True)).flatten(1)[:, :, None, None], 2).repeat(1, 1, 8, 8)


def test_the_trial_calls_the_network_as_the_denoiser_does(cosine: NoiseSchedule) -> None:
    dtypes = set()

    class Watcher(TinyNetwork):
        def forward(self, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            dtypes.add(timestep.dtype)
            return super().forward(x, timestep)

    fastest_dtype(Watcher(), torch.randn(1, 3, 16, 16), torch.device("cpu"))
    Denoiser(Watcher(), cosine, Prediction.V)(torch.randn(1, 3, 16, 16), torch.tensor([5]))
    assert dtypes == {torch.long}


def test_the_precision_is_chosen_by_trying_and_leaves_the_network_as_it_was() -> None:
    network = TinyNetwork()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    chosen = fastest_dtype(network, torch.randn(1, 3, 16, 16), torch.device("cpu"))
    assert chosen in (torch.float32, torch.bfloat16)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_denoiser_leaves_its_network_as_it_is(cosine: NoiseSchedule) -> None:
    network = torch.nn.Sequential(TinyNetwork(), torch.nn.GroupNorm(1, 3)).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    layers = list(network.modules())
    Denoiser(network, cosine, Prediction.V, dtype=torch.bfloat16)
    assert network.training
    assert list(network.modules()) == layers
    assert all(parameter.requires_grad for parameter in network.parameters())
    for key, value in network.state_dict().items():
        assert value.dtype == before[key].dtype
        assert torch.equal(value, before[key])
