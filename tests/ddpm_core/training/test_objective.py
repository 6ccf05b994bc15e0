import numpy as np
import pytest
import torch
from torch import nn

from ddpm_core.denoiser import Denoiser, Prediction
from ddpm_core.errors import InvalidInput
from ddpm_core.schedule import cosine
from ddpm_core.training.objective import Objective, emphasis, timestep_shares
from ddpm_core.training.recipe import Loss

SCHEDULE = cosine()


class Remembering(nn.Module):
    """Answers with zeros and keeps what it was asked."""

    def forward(self, x, timestep):
        self.x, self.timestep = x, timestep
        return torch.zeros_like(x)


def plain(prediction, loss=Loss.MSE, **settings):
    return Objective(SCHEDULE, prediction, loss=loss, **{"min_snr": 0, **settings})


@pytest.mark.parametrize("prediction", list(Prediction))
def test_the_loss_is_nought_for_the_answer_from_which_the_denoiser_gets_the_clean_image(prediction):
    x0, t = torch.rand(4, 3, 8, 8) * 2 - 1, torch.tensor([5, 300, 700, 950])

    class Oracle(nn.Module):
        def forward(self, x, timestep):
            a = torch.tensor(SCHEDULE.alpha_bar)[timestep + 1].view(-1, 1, 1, 1).float()
            e = (x - a.sqrt() * x0) / (1 - a).sqrt()
            return {
                Prediction.EPSILON: e,
                Prediction.V: a.sqrt() * e - (1 - a).sqrt() * x0,
                Prediction.SAMPLE: x0,
            }[prediction]

    assert (plain(prediction)(Oracle(), x0, t) < 1e-8).all()
    asked = Remembering()
    plain(prediction)(asked, x0, t)
    torch.testing.assert_close(
        Denoiser(Oracle(), SCHEDULE, prediction)(asked.x, asked.timestep + 1), x0, atol=2e-3, rtol=0
    )


def test_the_network_sees_an_image_of_its_own_noise_level():
    asked = Remembering()
    plain(Prediction.EPSILON)(asked, torch.ones(2, 3, 64, 64), torch.tensor([0, 999]))
    a = SCHEDULE.alpha_bar[[1, 1000]]
    np.testing.assert_allclose(asked.x.mean(dim=(1, 2, 3)), np.sqrt(a), atol=0.02)
    np.testing.assert_allclose(asked.x.std(dim=(1, 2, 3)), np.sqrt(1 - a), atol=0.02)


@pytest.mark.parametrize(("loss", "expected"), [(Loss.MSE, 9.0), (Loss.L1, 3.0), (Loss.HUBER, 2.5)])
def test_the_three_distances(loss, expected):
    zeros = Remembering()
    value = plain(Prediction.SAMPLE, loss)(zeros, torch.full((2, 3, 4, 4), 3.0), torch.tensor([1, 2]))
    torch.testing.assert_close(value, torch.full((2,), expected))


@pytest.mark.parametrize("prediction", list(Prediction))
def test_min_snr_makes_every_prediction_weigh_the_clean_image_s_error_alike(prediction):
    a = torch.tensor(SCHEDULE.alpha_bar[1:])
    snr = a / (1 - a)
    # what an error of 1 in the clean image costs in each prediction's own terms
    own = {Prediction.EPSILON: snr, Prediction.V: snr + 1, Prediction.SAMPLE: torch.ones_like(snr)}[prediction]
    weight = Objective(SCHEDULE, prediction, min_snr=5).weight.double()
    torch.testing.assert_close(weight * own, snr.clamp(max=5), rtol=1e-5, atol=1e-7)


def test_stratified_timesteps_put_one_into_each_part_of_the_schedule():
    objective = plain(Prediction.EPSILON)
    t = objective.timesteps(10)
    assert (t // 100).tolist() == list(range(10))
    assert objective.timesteps(10).tolist() != t.tolist()


def test_plain_timesteps_cover_the_whole_schedule():
    t = plain(Prediction.EPSILON, stratified=False).timesteps(5000)
    assert (t.min(), t.max()) == (pytest.approx(0, abs=5), pytest.approx(999, abs=5))
    assert (t[1:] < t[:-1]).any()


def test_with_patch_the_network_sees_pixel_blocks_as_channels_and_the_loss_stays_the_same():
    x0, t = torch.rand(2, 3, 8, 8), torch.tensor([100, 500])
    values = []
    for patch in (1, 2):
        torch.manual_seed(0)
        asked = Remembering()
        values.append(plain(Prediction.V, patch=patch)(asked, x0, t))
        assert asked.x.shape == (2, 3 * patch**2, 8 // patch, 8 // patch)
    torch.testing.assert_close(*values)


def test_a_focus_draws_its_share_evenly_in_ln_sigma_and_the_others_evenly():
    sigma = SCHEDULE.sigma_256(64)
    shares = timestep_shares(sigma, 0.6, (0.1, 2.0))
    inside = (sigma[1:] >= 0.1) & (sigma[1:] <= 2.0)
    assert shares.sum() == pytest.approx(1)
    assert shares[inside].sum() == pytest.approx(0.6 + 0.4 * inside.mean())
    assert shares[~inside] == pytest.approx(0.4 / 1000)
    middle = inside & (sigma[1:] < np.sqrt(0.1 * 2.0))
    assert (shares - 0.4 / 1000)[middle].sum() == pytest.approx(0.3, abs=0.02)
    drawn = Objective(SCHEDULE, Prediction.V, shares=shares).timesteps(1000)
    assert float(torch.from_numpy(inside)[drawn].float().mean()) == pytest.approx(shares[inside].sum(), abs=0.01)


def test_a_focus_on_no_level_is_refused():
    with pytest.raises(InvalidInput, match="No noise level lies in focus_sigma"):
        timestep_shares(SCHEDULE.sigma_256(64), 0.5, (1e-9, 1e-8))


def test_emphasis_gives_eyes_and_mouth_their_weight_and_the_whole_its_own():
    weights = emphasis(32, 4)
    assert weights.mean().item() == pytest.approx(1)
    assert weights.max() / weights.min() == pytest.approx(4)
    high = weights > 1
    assert high[[15, 15, 24], [12, 19, 16]].all()  # the eyes and the mouth of a face in place
    assert not high[[20, 2, 15], [16, 16, 1]].any()  # nose, hair and background
    assert torch.equal(weights, weights.flip(1))


def test_an_error_at_the_eyes_weighs_more_and_the_loss_of_an_even_one_is_the_same():
    class Off(nn.Module):
        def __init__(self, where):
            super().__init__()
            self.where = where

        def forward(self, x, timestep):
            return self.where.expand_as(x)

    eyes = torch.zeros(16, 16)
    eyes[7, 4:12] = 1
    below = torch.zeros(16, 16)
    below[15, 4:12] = 1
    x0, t = torch.zeros(1, 3, 32, 32), torch.tensor([500])
    objective = plain(Prediction.SAMPLE, patch=2, emphasis=emphasis(16, 4))
    at_eyes, elsewhere, everywhere = (
        objective(Off(where), x0, t).item() for where in (eyes, below, torch.ones(16, 16))
    )
    assert at_eyes == pytest.approx(4 * elsewhere)
    assert everywhere == pytest.approx(1)
