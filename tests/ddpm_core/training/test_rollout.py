"""Pictures of the network's own making, under way from call to call."""

import numpy as np
import pytest
import torch

from ddpm_core.denoiser import Prediction
from ddpm_core.guidance import low_pass
from ddpm_core.sampling import Sampler, build
from ddpm_core.schedule import cosine
from ddpm_core.training.objective import Objective
from ddpm_core.training.rollout import Rollout

SIDE = 32
SCHEDULE = cosine()
LOG_SIGMA = torch.from_numpy(np.log(SCHEDULE.sigma_256(SIDE)[1:]))


def photographs(count=32, value=0.5):
    return torch.full((count, 3, SIDE, SIDE), value)


@pytest.fixture
def rollout():
    torch.manual_seed(0)
    return Rollout(Objective(SCHEDULE, Prediction.V), LOG_SIGMA, mirror=True)


def test_pictures_begin_in_all_noise_from_a_selfie_s_to_noise_alone(rollout):
    sigma = LOG_SIGMA[rollout.now(photographs()).t].exp()
    assert 3.9 < sigma.min() < 5
    assert 130 < sigma.max() < 170


def test_each_call_has_two_to_eight_times_less_noise_down_to_the_last_one_s(rollout):
    lasts = []
    for _ in range(12):
        now = rollout.now(photographs())
        rollout.go_on(photographs())
        rest = rollout.state()["t"]
        done = rest < 0
        lasts += LOG_SIGMA[now.t[done]].exp().tolist()
        falls = (LOG_SIGMA[now.t] - LOG_SIGMA[rest]).exp()[~done]
        to_the_last = LOG_SIGMA[rest[~done]].exp() < 0.3
        assert (falls < 8.5).all()
        assert (falls[~to_the_last] > 1.9).all()
    assert lasts
    assert all(0.2 < sigma < 0.3 for sigma in lasts)


def test_a_call_is_ancestral_sampling_s(rollout):
    torch.manual_seed(1)
    made = torch.rand(32, 3, SIDE, SIDE) - 0.5
    now = rollout.now(made)  # who is pulled is pulled to what it is
    rollout.go_on(made)
    then = rollout.state()
    for row in range(32):
        levels = (int(now.t[row]) + 1, int(then["t"][row]) + 1)
        table = build(Sampler.DDPM, SCHEDULE, (*levels, 0))
        mean = table.A[0] * now.x[row] + table.B0[0] * made[row]
        noise = (then["x"][row] - mean) / table.D[0]
        assert abs(float(noise.mean())) < 0.1
        assert abs(float(noise.std()) - 1) < 0.1


def test_the_rest_that_begins_in_little_noise_is_pulled_to_its_photograph_as_a_selfie_s_face_is(rollout):
    now = rollout.now(photographs(value=0.8))
    rollout.go_on(photographs(value=-0.8))
    then = rollout.state()
    sigma = rollout.objective.sigma(then["t"])
    coarse = low_pass(then["x"] * (1 + sigma.square()).sqrt(), 4).mean((1, 2, 3))
    in_sight = now.start < np.log(16.0)
    assert in_sight.any()
    assert not in_sight.all()
    assert (coarse[in_sight] > 0.3).all()
    assert (coarse[~in_sight] < 0).all()


def test_of_a_face_late_noise_is_the_same_on_both_sides_and_early_noise_is_not(rollout):
    now = rollout.now(photographs())
    noise = now.x - rollout.objective.noised(now.x0, now.t, torch.zeros_like(now.x0))
    uneven = (noise - noise.flip(-1))[:, :, SIDE // 2 :].abs().mean((1, 2, 3))  # below the hair
    late = now.start < np.log(8.9)
    assert (uneven[late] < 1e-5).all()
    assert (uneven[~late] > 0.5).all()


def test_a_photograph_takes_the_place_of_a_picture_that_is_done_and_of_no_other(rollout):
    rollout.now(photographs(value=0.1))
    for _ in range(12):
        rollout.go_on(photographs())
        done = rollout.state()["t"] < 0
        now = rollout.now(photographs(value=0.9))
        assert (now.x0[done] == 0.9).all()
        if done.any():
            break
    assert not done.all()
    assert (now.x0[~done] == 0.1).all()


def test_where_the_pictures_are_is_kept_and_taken_up(rollout):
    rollout.now(photographs())
    rollout.go_on(photographs())
    other = Rollout(rollout.objective, LOG_SIGMA, mirror=True)
    other.load(rollout.state())
    ours, theirs = (each.now(photographs(value=0.0)) for each in (rollout, other))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    fresh = Rollout(rollout.objective, LOG_SIGMA, mirror=True)
    fresh.load(fresh.state())
    assert fresh.state() == {}
