"""Best of K: of pictures equally near to the selfie, whole ones come first."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm_core.bundle import Statistics, Wholeness
from ddpm_core.denoiser import Denoiser, Prediction
from ddpm_core.gate import noised
from ddpm_core.ranking import demerits
from ddpm_core.schedule import NoiseSchedule
from ddpm_core.wholeness import SIGMA, features, fit, score

from .conftest import SIDE, TinyNetwork


class Hourglass(nn.Module):
    """Halves its pictures twice and enlarges them again, in a layer whose channels are plain to see."""

    def __init__(self, times: int = 2) -> None:
        super().__init__()
        self.down, self.again, self.out = nn.AvgPool2d(2), nn.AvgPool2d(2), nn.Identity()
        self.grow = nn.ModuleList(nn.Upsample(scale_factor=2) for _ in range(times))

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        small = self.down(x).abs()
        small = small if len(self.grow) == 1 else self.again(small)
        for grow in self.grow:
            small = 2 * grow(small)
        return self.out(torch.tanh(small))


@pytest.fixture
def denoiser(cosine: NoiseSchedule) -> Denoiser:
    return Denoiser(Hourglass(), cosine, Prediction.SAMPLE)


def stripes(count: int, strength: float, seed: int = 0) -> Tensor:
    """Grey pictures with stripes 4 px wide and a little noise: their coarse structure at 4 cells is one grey."""
    random = torch.Generator().manual_seed(seed)
    wave = (torch.arange(SIDE) % 4 < 2) * 2.0 - 1
    return strength * wave + 0.05 * torch.randn(count, 3, SIDE, SIDE, generator=random)


@pytest.mark.parametrize("times", [1, 2])
def test_features_are_cells_of_what_has_grown_twice_or_once_after_it_was_smallest(
    cosine: NoiseSchedule, times: int
) -> None:
    denoiser = Denoiser(Hourglass(times), cosine, Prediction.SAMPLE)
    left = stripes(2, 0.1)
    left[:, :, :, : SIDE // 2] = stripes(2, 0.9)[:, :, :, : SIDE // 2]
    found = features(denoiser, left, rows=2)
    assert found is not None
    cells = found.view(2, 3, 4, 4)
    assert (cells[..., :2] > 2 * cells[..., 2:]).all()
    network = denoiser.network
    assert isinstance(network, Hourglass)
    x, _ = noised(denoiser, left, SIGMA)
    small = network.down(x).abs() if times == 1 else network.again(network.down(x).abs())
    for i, grow in enumerate(network.grow):
        small = grow(small) * (2 if i < times - 1 else 1)
    assert torch.allclose(cells, F.adaptive_avg_pool2d(small, 4), atol=1e-5)


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
    wholeness = fit(torch.rand(8, 3), torch.tensor([0.0, 1] * 4), torch.zeros(8, dtype=torch.int64), "nothing")
    with_them = demerits(denoiser, images, target, rows=3, wholeness=wholeness)
    assert torch.equal(with_them, demerits(denoiser, images, target, rows=3))


def of_stripes(denoiser: Denoiser, count: int, strength: float, seed: int) -> Tensor:
    found = features(denoiser, stripes(count, strength, seed), rows=count)
    assert found is not None
    return found


def learnt(denoiser: Denoiser) -> Wholeness:
    """From twenty pairs, the strong one of each broken."""
    found = torch.cat([of_stripes(denoiser, 20, 0.6, 1), of_stripes(denoiser, 20, 0.2, 2)])
    return fit(found, torch.arange(40) < 20, torch.arange(20).repeat(2), "stripes")


def test_the_direction_tells_broken_from_whole_faces_that_it_has_not_seen(denoiser: Denoiser) -> None:
    wholeness = learnt(denoiser)
    assert (wholeness.images, wholeness.source) == (40, "stripes")
    whole, broken = (score(wholeness, of_stripes(denoiser, 40, strength, 3)) for strength in (0.2, 0.6))
    assert whole.min() > broken.max()


def test_what_all_faces_of_a_selfie_share_says_nothing() -> None:
    """One selfie's faces are all bright and mostly broken, another's all dark and mostly whole."""
    bright = torch.tensor([5.0, 5, 5, 5, 0, 0, 0, 0])
    own = torch.tensor([1.0, 1, 1, 0, 1, 0, 0, 0])
    broken, of = own, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    weights = fit(torch.stack([bright, own], 1), broken, of, "a trial").weights
    assert weights[0] == 0
    assert weights[1] < 0


def test_opinions_that_differ_count_by_their_share() -> None:
    found = torch.eye(3)
    weights = fit(found, torch.tensor([0.0, 0.5, 1.0]), torch.zeros(3, dtype=torch.int64), "a trial").weights
    assert weights[0] > weights[1] > weights[2]


def test_the_best_is_whole_and_near_to_the_target(denoiser: Denoiser) -> None:
    wholeness = learnt(denoiser)
    target = stripes(1, 0.2, seed=9)[0]
    good, broken, far = stripes(1, 0.2, 5)[0], stripes(1, 0.6, 5)[0], stripes(1, 0.2, 5)[0] + 0.5
    for order in ([good, broken, far], [broken, far, good], [far, good, broken]):
        scores = demerits(denoiser, torch.stack(order), target, rows=2, wholeness=wholeness)
        assert next(i for i, image in enumerate(order) if image is good) == scores.argmin()


def test_without_statistics_the_nearest_is_the_best(denoiser: Denoiser) -> None:
    target = stripes(1, 0.2)[0]
    near, far = target + 0.01, target + 0.3
    assert demerits(denoiser, torch.stack([far, near]), target, rows=2).tolist()[1] < 0


def test_bundles_with_the_features_of_before_work_without_them() -> None:
    before = {"weights": [0.5, -0.5], "images": 2, "source": "photographs"}
    assert Statistics.model_validate({"familiar": before}) == Statistics()
    with pytest.raises(ValueError, match="unknown_statistic"):
        Statistics.model_validate({"unknown_statistic": before})
