"""A student learns what a guided teacher predicts, in one call."""

import numpy as np
import pytest
import torch
from torch import nn

from ddpm_core.bundle import Guide, add_guide, read_bundle
from ddpm_core.denoiser import Prediction
from ddpm_core.errors import InvalidInput
from ddpm_core.schedule import cosine
from ddpm_core.training import run
from ddpm_core.training.export import export
from ddpm_core.training.loop import Limits
from ddpm_core.training.objective import Objective
from ddpm_core.training.teacher import TwoTeachers, load_teacher, shares

SCHEDULE = cosine()
T = torch.tensor([5, 300, 700, 950])
# Where only the end of a run counts, it is validated and kept there alone.
END = {"checkpoint_every": 0, "validate_every": 0}


@pytest.fixture(scope="module")
def worse(tmp_path_factory, pictures, tiny):
    out = tmp_path_factory.mktemp("worse") / "run"
    run.train(pictures, out, tiny(), Limits(max_steps=2))
    return out / "last"


@pytest.fixture(scope="module")
def pair(tmp_path_factory, pictures, tiny, worse):
    """A model and its guide, which pushes by 2 for σ of 2 to 100."""
    home = tmp_path_factory.mktemp("pair")
    run.train(pictures, home / "run", tiny(seed=1, **END))
    export(home / "run" / "last", home / "model", "1.0")
    add_guide(home / "model", worse, Guide(weight=2, interval=(2, 100)))
    return home / "model"


def predictions(path, network, x):
    bundle = read_bundle(path)
    with torch.no_grad():
        return bundle.denoiser(network.eval(), torch.device("cpu"), torch.float32)(x, T + 1)


def teacher_of(path, weight=0.0):
    return load_teacher(path, weight, read_bundle(path), torch.device("cpu"), torch.float32)


def test_inside_the_guide_s_interval_it_predicts_what_the_pair_does_and_outside_what_the_network_does(pair):
    bundle = read_bundle(pair)
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    own, guide = predictions(pair, bundle.load_network(), x), predictions(pair, bundle.load_guide(), x)
    sigma = bundle.schedule.sigma_256(16)[T.numpy() + 1]
    inside = torch.from_numpy((sigma >= 2) & (sigma <= 100)).view(-1, 1, 1, 1)
    assert 0 < int(inside.sum()) < 4
    for weight, w in ((0, 2), (1, 1), (3, 3)):
        expected = torch.where(inside, own + (w - 1) * (own - guide), own)
        torch.testing.assert_close(teacher_of(pair, weight)(x, T), expected, atol=1e-5, rtol=1e-5)


def test_of_two_teachers_each_teaches_where_it_is_the_better_one_and_between_them_a_mix(pair, worse):
    sigma = read_bundle(pair).schedule.sigma_256(16)
    low, high = (float(sigma[int(t) + 1]) for t in (T[1] - 1, T[2] + 1))
    share = shares(sigma, (low, high))
    coarse, fine = teacher_of(pair), teacher_of(worse)
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    taught = TwoTeachers(coarse, fine, share)(x, T)
    torch.testing.assert_close(taught[0], fine(x, T)[0])
    torch.testing.assert_close(taught[3], coarse(x, T)[3])
    between = share[T + 1].view(-1, 1, 1, 1)
    assert [float(part) for part in between[:, 0, 0, 0]] == sorted(float(part) for part in between[:, 0, 0, 0])
    assert 0 < float(between[1]) < float(between[2]) < 1
    torch.testing.assert_close(taught, between * coarse(x, T) + (1 - between) * fine(x, T))


def test_the_share_of_the_coarse_teacher_rises_by_the_logarithm_of_noise():
    share = shares(np.array([0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 100.0]), (1, 4))
    torch.testing.assert_close(share, torch.tensor([0, 0, 0, 0.5, 1, 1, 1]))


@pytest.mark.parametrize("prediction", list(Prediction))
def test_the_loss_is_nought_for_who_predicts_what_the_teacher_does(prediction):
    taught = torch.rand(4, 3, 8, 8) * 2 - 1

    class Student(nn.Module):
        def forward(self, x, timestep):
            a = torch.tensor(SCHEDULE.alpha_bar)[timestep + 1].view(-1, 1, 1, 1).float()
            e = (x - a.sqrt() * taught) / (1 - a).sqrt()
            v = a.sqrt() * e - (1 - a).sqrt() * taught
            return {Prediction.EPSILON: e, Prediction.V: v, Prediction.SAMPLE: taught}[prediction]

    objective = Objective(SCHEDULE, prediction, min_snr=0, teacher=lambda x, t: taught)
    assert (objective(Student(), torch.rand(4, 3, 8, 8), T) < 1e-5).all()


def test_a_student_comes_nearer_to_the_guided_prediction_and_says_whose_it_is(pair, pictures, tmp_path, tiny):
    rows = []
    recipe = tiny(init=str(pair), teacher=str(pair), steps=40, seed=2, ema_half_life=0, decay="none", **END)
    run.train(pictures, tmp_path / "run", recipe, report=rows.append)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    student = export(tmp_path / "run" / "last", tmp_path / "student", "1.1")
    assert student.manifest.guide is None
    assert student.manifest.provenance["teacher"] == "model 1.0, w = 2"
    assert "learnt the guided prediction of model 1.0, w = 2" in (student.path / "README.md").read_text("utf-8")


def test_a_student_of_two_says_what_it_learnt_of_whom(pair, worse, pictures, tmp_path, tiny):
    recipe = tiny(
        init=str(pair), teacher=str(pair), fine_teacher=str(worse), teacher_sigma=(0.5, 4), teacher_guide=1, **END
    )
    run.train(pictures, tmp_path / "run", recipe, Limits(max_steps=2))
    student = export(tmp_path / "run" / "last", tmp_path / "student", "1.1")
    assert student.manifest.provenance["teacher"] == "model 1.0, w = 1"
    assert student.manifest.provenance["fine_teacher"] == "model 0.1, w = 1"
    card = " ".join((student.path / "README.md").read_text("utf-8").split())
    assert "learnt the prediction of model 1.0, w = 1, down to σ = 4, and of model 0.1, w = 1, below 0.5" in card


def test_a_run_with_a_teacher_is_resumed_with_it(pair, pictures, tmp_path, tiny):
    recipe = tiny(init=str(pair), teacher=str(pair), teacher_guide=1.5)
    run.train(pictures, tmp_path / "once", recipe)
    run.train(pictures, tmp_path / "twice", recipe, Limits(max_steps=4))
    run.resume(tmp_path / "twice")
    once, twice = (read_bundle(tmp_path / name / "last") for name in ("once", "twice"))
    assert twice.manifest.provenance["teacher"] == "model 1.0, w = 1.5"
    for a, b in zip(once.read_weights().values(), twice.read_weights().values(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"image_size": 8}, "makes pictures of 3 × 16 × 16; it takes 3 × 8 × 8"),
        ({"schedule": "linear"}, "has another noise schedule"),
        ({"teacher_guide": 4}, "teacher_guide must be 1..3, or 0 for the teacher's own, not 4"),
        ({"teacher_guide": 0.5}, "teacher_guide must be 1..3, or 0 for the teacher's own, not 0.5"),
        ({"fine_teacher": "x", "teacher": ""}, "fine_teacher must be empty without a teacher, not 'x'"),
        ({"teacher_sigma": (4, 2)}, "teacher_sigma must be two numbers above 0 that rise, not [4.0, 2.0]"),
        ({"teacher_guide": 2, "teacher": ""}, "teacher_guide must be 0 without a teacher, not 2"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_by_what_sets_it_apart(pair, pictures, tmp_path, tiny, change, why):
    with pytest.raises(InvalidInput) as caught:
        run.train(pictures, tmp_path / "run", tiny(**{"teacher": str(pair), **change}))
    assert why in caught.value.message


def test_a_second_teacher_that_does_not_fit_is_refused_by_its_own_name(pair, pictures, tmp_path, tiny):
    run.train(pictures, tmp_path / "large", tiny(image_size=32), Limits(max_steps=1))
    with pytest.raises(InvalidInput, match=r"fine_teacher = .* makes pictures of 3 × 32 × 32") as caught:
        run.train(pictures, tmp_path / "run", tiny(teacher=str(pair), fine_teacher=str(tmp_path / "large" / "last")))
    assert caught.value.field == "fine_teacher"


def test_a_weight_for_a_teacher_without_a_guide_is_refused(worse, pictures, tmp_path, tiny):
    with pytest.raises(InvalidInput, match=r"teacher_guide = 2: .* has no guide"):
        run.train(pictures, tmp_path / "run", tiny(teacher=str(worse), teacher_guide=2))
