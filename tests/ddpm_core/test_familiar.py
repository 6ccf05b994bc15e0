"""Best of K: of pictures equally near to the selfie, those like what the model makes come first."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ddpm_core.denoiser import Denoiser, Prediction
from ddpm_core.familiar import features, fit, score
from ddpm_core.ranking import demerits
from ddpm_core.schedule import NoiseSchedule

from .conftest import SIDE, TinyNetwork


class Hourglass(nn.Module):
    """Halves its pictures and enlarges them again, in a layer whose channels are plain to see."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.grow, self.out = nn.AvgPool2d(2), nn.Upsample(scale_factor=2), nn.Identity()

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return self.out(torch.tanh(self.grow(self.down(x))))


@pytest.fixture
def denoiser(cosine: NoiseSchedule) -> Denoiser:
    return Denoiser(Hourglass(), cosine, Prediction.SAMPLE)


def stripes(count: int, strength: float, seed: int = 0) -> Tensor:
    """Grey pictures with stripes 4 px wide and a little noise: their coarse structure at 4 cells is one grey."""
    random = torch.Generator().manual_seed(seed)
    wave = (torch.arange(SIDE) % 4 < 2) * 2.0 - 1
    return strength * wave + 0.05 * torch.randn(count, 3, SIDE, SIDE, generator=random)


def test_features_are_the_spread_of_what_first_grows_after_it_was_smallest(denoiser: Denoiser) -> None:
    found = features(denoiser, stripes(2, 0.5), rows=2)
    assert found is not None
    assert found.shape == (2, 3)
    faint = features(denoiser, stripes(2, 0.1), rows=2)
    assert faint is not None
    assert (found > faint).all()


def test_an_image_has_the_same_features_alone_and_among_others(denoiser: Denoiser) -> None:
    images = stripes(5, 0.4)
    together, alone = features(denoiser, images, rows=4), features(denoiser, images[4:], rows=1)
    assert together is not None
    assert alone is not None
    assert torch.allclose(together[4:], alone, atol=1e-6)


def test_a_network_whose_pictures_have_one_size_has_none(cosine: NoiseSchedule) -> None:
    denoiser = Denoiser(TinyNetwork(), cosine, Prediction.EPSILON)
    images, target = stripes(3, 0.4), stripes(1, 0.4, seed=9)[0]
    assert features(denoiser, images, rows=3) is None
    familiar = fit(torch.rand(8, 3), torch.rand(8, 3), "nothing")
    with_them = demerits(denoiser, images, target, rows=3, familiar=familiar)
    assert torch.equal(with_them, demerits(denoiser, images, target, rows=3))


def test_the_direction_tells_what_is_made_from_photographs_that_it_has_not_seen(denoiser: Denoiser) -> None:
    def of(strength: float, seed: int) -> Tensor:
        found = features(denoiser, stripes(40, strength, seed), rows=40)
        assert found is not None
        return found

    familiar = fit(of(0.6, 1), of(0.2, 2), "stripes")
    assert (familiar.images, familiar.source) == (40, "stripes")
    assert score(familiar, of(0.2, 3)).min() > score(familiar, of(0.6, 4)).max()


def test_the_best_is_like_what_the_model_makes_and_near_to_the_target(denoiser: Denoiser) -> None:
    real, made = (features(denoiser, stripes(40, strength), rows=40) for strength in (0.6, 0.2))
    assert real is not None
    assert made is not None
    familiar = fit(real, made, "stripes")
    target = stripes(1, 0.2, seed=9)[0]
    good, broken, far = stripes(1, 0.2, 5)[0], stripes(1, 0.6, 5)[0], stripes(1, 0.2, 5)[0] + 0.5
    for order in ([good, broken, far], [broken, far, good], [far, good, broken]):
        scores = demerits(denoiser, torch.stack(order), target, rows=2, familiar=familiar)
        assert next(i for i, image in enumerate(order) if image is good) == scores.argmin()


def test_without_statistics_the_nearest_is_the_best(denoiser: Denoiser) -> None:
    target = stripes(1, 0.2)[0]
    near, far = target + 0.01, target + 0.3
    assert demerits(denoiser, torch.stack([far, near]), target, rows=2).tolist()[1] < 0
