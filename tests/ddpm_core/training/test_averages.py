"""A network learns, in one call without noise, the mean of what its teacher answers over noise."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from ddpm_core.bundle import Guide, add_guide, read_bundle
from ddpm_core.denoiser import Prediction
from ddpm_core.errors import InvalidInput
from ddpm_core.plan import make_plan
from ddpm_core.schedule import cosine
from ddpm_core.training import run
from ddpm_core.training.averages import Averages
from ddpm_core.training.export import export
from ddpm_core.training.loop import Limits
from ddpm_core.training.objective import Objective
from ddpm_core.training.teacher import load_teacher

SCHEDULE = cosine()
SIGMA = SCHEDULE.sigma_256(16)[1:]


@pytest.fixture(scope="module")
def guided(tmp_path_factory, pictures, tiny):
    """A model whose guide pushes by 2 for σ of 1 to 60."""
    home = tmp_path_factory.mktemp("guided")
    for name, seed in (("worse", 0), ("model", 1)):
        run.train(pictures, home / name, tiny(seed=seed), Limits(max_steps=2))
    export(home / "model" / "last", home / "bundle", "1.0")
    add_guide(home / "bundle", home / "worse" / "last", Guide(weight=2, interval=(1, 60)))
    return home / "bundle"


def averages_of(path):
    teacher = load_teacher(path, 0, read_bundle(path), torch.device("cpu"), torch.float32)
    objective = Objective(SCHEDULE, Prediction.V, teacher=teacher)
    return Averages(objective, teacher, torch.from_numpy(np.log(SIGMA))), objective, teacher


def test_calls_between_the_first_and_the_last_are_asked_without_noise_and_answered_by_a_mean(guided):
    averages, objective, teacher = averages_of(guided)
    torch.manual_seed(0)
    pictures = torch.rand(3, 3, 16, 16) * 2 - 1
    questions = averages.questions(pictures)
    assert len(questions) == 7
    alone, first, *means, last = questions
    for x, t, answer in (alone, first, last):  # with noise, and as the teacher itself answers
        torch.testing.assert_close(answer, teacher.unguided(x, t))
    sigma = [SIGMA[t.numpy()] for _, t, _ in means]
    for before, after in pairwise(sigma):
        assert before.mean() > after.mean()
    for x, t, answer in means:
        clean = x / objective.signal[t].view(-1, 1, 1, 1)
        noise = torch.randn(64, *clean.shape)
        level = objective.noise[t].view(-1, 1, 1, 1)
        seen = [teacher(x + sign * level * each, t) for each in noise for sign in (1, -1)]
        expected, spread = torch.stack(seen).mean(0), torch.stack(seen).std(0)
        assert (answer - expected).abs().mean() < spread.mean()  # a pair is nearer to the mean than one call


def test_its_loss_is_nought_for_a_network_that_gives_the_answers(guided):
    averages, objective, _ = averages_of(guided)
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.manual_seed(3)
    answers = torch.cat([answer for _, _, answer in averages.questions(pictures)])

    class Knows(nn.Module):
        def forward(self, x, t):
            signal, noise = (part[t].view(-1, 1, 1, 1) for part in (objective.signal, objective.noise))
            return (signal * x - answers) / noise

    torch.manual_seed(3)
    assert float(averages.loss(Knows(), pictures)) < 1e-6
    torch.manual_seed(3)
    assert float(averages.loss(Echo(), pictures)) > 1e-3


class Echo(nn.Module):
    def forward(self, x, t):
        return x


def test_a_run_with_means_gives_a_bundle_that_says_so_and_is_asked_once(guided, tmp_path, pictures, tiny):
    recipe = tiny(init=str(guided), teacher=str(guided), averages=True, sampler="lcm", batch=2)
    run.train(pictures, tmp_path / "run", recipe, Limits(max_steps=3))
    learnt, twice = read_bundle(tmp_path / "run" / "best"), read_bundle(guided)
    assert learnt.manifest.averages
    assert not twice.manifest.averages
    assert "pushed, on the mean over noise" in (learnt.path / "README.md").read_text(encoding="utf-8")
    picture = np.full((16, 16, 3), 128, np.uint8)
    one, two = (make_plan(each, picture, sampler="lcm", num_inference_steps=6, seed=1) for each in (learnt, twice))
    assert one.cost(0).sum() == 6 < two.cost(0).sum()
    assert np.array_equal(one.table.noiseless, two.table.antithetic != 0)


@pytest.mark.parametrize("others", [{}, {"teacher": "a", "fine_teacher": "b"}])
def test_means_are_one_teacher_s(tiny, others):
    with pytest.raises(InvalidInput, match="averages"):
        tiny(averages=True, **others)
