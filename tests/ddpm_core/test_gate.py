"""Which targets are strange to a model, and what is done about their tone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ddpm_core.bundle import Gate, Tone
from ddpm_core.denoiser import Denoiser, Prediction
from ddpm_core.gate import LIMIT, SIGMA, Judgement, denoising_errors, fit, score
from ddpm_core.schedule import NoiseSchedule
from ddpm_core.tone import pull, tone_of

from .conftest import SIDE, GaussianDenoiser

MEAN, VARIANCE = 0.2, 0.01


@pytest.fixture
def knowing(cosine: NoiseSchedule) -> Denoiser:
    """Knows pictures of faint independent pixels around a light grey, perfectly."""
    return Denoiser(GaussianDenoiser(cosine, MEAN, VARIANCE), cosine, Prediction.EPSILON)


def pictures(count: int, mean: float = MEAN, variance: float = VARIANCE, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return mean + math.sqrt(variance) * torch.randn(count, 3, SIDE, SIDE, generator=random)


def judge(gate: Gate, denoiser: Denoiser, images: Tensor) -> Tensor:
    return score(gate, *denoising_errors(denoiser, images))


def test_the_errors_are_those_of_the_model_and_of_plain_smoothing(knowing: Denoiser) -> None:
    model, plain = denoising_errors(knowing, pictures(64))
    a = float(knowing.schedule.alpha_bar[knowing.schedule.level_at(SIGMA, SIDE)])
    posterior = VARIANCE * (1 - a) / (a * VARIANCE + 1 - a)  # of the perfect denoiser, in closed form
    assert float(model.exp().mean()) == pytest.approx(posterior, rel=0.05)
    assert float(plain.exp().mean()) > posterior


def test_an_image_is_judged_alike_alone_and_among_others(knowing: Denoiser) -> None:
    images = pictures(5)
    together = denoising_errors(knowing, images, rows=4)
    for i in range(len(images)):
        alone = denoising_errors(knowing, images[i : i + 1])
        for a, b in zip(alone, together, strict=True):
            assert float(a[0]) == pytest.approx(float(b[i]), rel=1e-4)


def test_what_the_model_knows_is_usual_and_what_it_does_not_is_strange(knowing: Denoiser) -> None:
    gate = fit(*denoising_errors(knowing, pictures(100)), "its own kind")
    known = judge(gate, knowing, pictures(100, seed=1))
    assert abs(float(known.mean())) < 0.5
    assert float((known > LIMIT).float().mean()) <= 0.05
    for strange in (pictures(20, mean=-0.8, seed=2), pictures(20, variance=0.3, seed=3)):
        assert (judge(gate, knowing, strange) > LIMIT).all()
    assert (gate.images, gate.source) == (100, "its own kind")


def test_a_flat_picture_does_not_pass_as_typical(knowing: Denoiser) -> None:
    gate = fit(*denoising_errors(knowing, pictures(100)), "its own kind")
    flat = torch.full((1, 3, SIDE, SIDE), -0.5)
    assert float(judge(gate, knowing, flat)) > LIMIT


def test_pictures_that_are_all_alike_make_a_gate_that_can_be_kept(knowing: Denoiser) -> None:
    gate = fit(*denoising_errors(knowing, pictures(1).expand(8, -1, -1, -1)), "one picture")
    assert Gate.model_validate(gate.model_dump()) == gate


def test_only_a_score_above_the_limit_is_strange() -> None:
    assert not Judgement().is_strange
    assert not Judgement(score=LIMIT).is_strange
    assert Judgement(score=LIMIT + 0.1).is_strange


def test_a_strange_tone_is_drawn_most_of_the_way_to_the_usual_one_and_detail_stays() -> None:
    usual = tone_of(pictures(50, mean=0.1, variance=0.04))
    dark = pictures(1, mean=-0.7, variance=0.002, seed=4)[0]
    pulled = pull(dark, usual)
    before, after = (tone_of(image[None]) for image in (dark, pulled))
    for was, now, wanted in zip(before.mean, after.mean, usual.mean, strict=True):
        assert now - was == pytest.approx(0.6 * (wanted - was), rel=0.02)
    for was, now, wanted in zip(before.std, after.std, usual.std, strict=True):
        assert now - was == pytest.approx(0.6 * (wanted - was), rel=0.1)
    assert torch.allclose(pull(dark, before), dark, atol=1e-5)  # what is usual already stays


def test_a_flat_picture_is_pulled_without_harm() -> None:
    pulled = pull(torch.zeros(3, SIDE, SIDE), Tone(mean=(0.5, 0.0, -0.5), std=(0.3, 0.3, 0.3)))
    assert pulled.isfinite().all()
    assert pulled.mean((1, 2)).tolist() == pytest.approx([0.3, 0.0, -0.3], abs=0.01)
