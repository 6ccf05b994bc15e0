"""Toy models: small, exact, and no weights on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ddpm_core import schedule
from ddpm_core.bundle import Bundle, Manifest
from ddpm_core.denoiser import Denoiser, Prediction
from ddpm_core.schedule import NoiseSchedule

SIDE = 16


class GaussianDenoiser(nn.Module):
    """The perfect denoiser of a data set of independent Gaussian pixels, mean m and variance v, known in closed form.

    The mean may be a picture, (C, H, W).

    E[x0 | x] = m + √ᾱ·v/(ᾱ·v + 1 − ᾱ)·(x − √ᾱ·m); given as the noise it implies.
    """

    def __init__(self, noise_schedule: NoiseSchedule, mean: float | Tensor, variance: float) -> None:
        super().__init__()
        self.register_buffer("alpha_bar", torch.tensor(noise_schedule.alpha_bar))
        self.mean, self.variance = mean, variance

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        a = self.alpha_bar[timestep.long() + 1].view(-1, 1, 1, 1).to(x.dtype)
        gain = a.sqrt() * self.variance / (a * self.variance + 1 - a)
        x0 = self.mean + gain * (x - a.sqrt() * self.mean)
        return (x - a.sqrt() * x0) / (1 - a).sqrt()


class TinyNetwork(nn.Module):
    """A small convolution with random weights that uses its timestep: rows of it differ in all that matters."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)  # the same network in every test
            self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return torch.tanh(self.conv(x)) + 0.1 * torch.sin(timestep.to(x.dtype) / 50).view(-1, 1, 1, 1)


@pytest.fixture(scope="session")
def cosine() -> NoiseSchedule:
    return schedule.cosine()


@pytest.fixture
def tiny_denoiser(cosine: NoiseSchedule) -> Denoiser:
    return Denoiser(TinyNetwork(), cosine, Prediction.EPSILON)


@pytest.fixture
def tiny_bundle(cosine: NoiseSchedule) -> Bundle:
    manifest = Manifest(
        name="tiny", version="1.0", domain="any", image_size=SIDE, channels=3, prediction_type=Prediction.EPSILON
    )
    return Bundle(Path("tiny"), manifest, cosine)


@pytest.fixture
def target() -> np.ndarray:
    """A picture with structure: a gradient with a bright square."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, SIDE)[:, None]
    pixels[..., 1] = np.linspace(255, 0, SIDE)[None, :]
    pixels[4:9, 5:11] = 230
    return pixels
