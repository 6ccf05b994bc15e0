"""Autoguidance: a worse network beside the network, called where the table asks for it and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm_core.bundle import Bundle, Guide
from ddpm_core.denoiser import Denoiser, Prediction
from ddpm_core.engine import StepEngine
from ddpm_core.errors import InvalidInput
from ddpm_core.events import Progress
from ddpm_core.pace import measure_guide_cost
from ddpm_core.plan import Plan, make_plan
from ddpm_core.sampling import noise, sample

from .conftest import TinyNetwork


class CountingNetwork(TinyNetwork):
    """A network of other weights, which counts the rows of its calls."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.conv.weight *= 0.5
        self.rows: list[int] = []

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        self.rows.append(len(x))
        return super().forward(x, timestep)


@pytest.fixture
def guide() -> CountingNetwork:
    return CountingNetwork()


@pytest.fixture
def pushed(tiny_denoiser: Denoiser, guide: CountingNetwork) -> Denoiser:
    """Give the tiny denoiser with a guide."""
    schedule, prediction = tiny_denoiser.schedule, tiny_denoiser.prediction
    return Denoiser(tiny_denoiser.network, schedule, prediction, guide=Denoiser(guide, schedule, prediction))


@pytest.fixture
def bundle(tiny_bundle: Bundle) -> Bundle:
    """Give a bundle whose guide pushes by 2 between σ₂₅₆ 1 and 60."""
    manifest = tiny_bundle.manifest.model_copy(update={"guide": Guide(weight=2, interval=(1, 60))})
    return replace(tiny_bundle, manifest=manifest)


def plans(bundle: Bundle, target: np.ndarray, **how: float) -> list[Plan]:
    return [
        make_plan(bundle, seed=1, sampler="ddpm", num_inference_steps=7, **how),
        make_plan(bundle, seed=2, num_inference_steps=5, **how),
        make_plan(bundle, target, seed=3, mode="likeness", **how),
        make_plan(bundle, target, seed=4, mode="celebrity", sampler="dpmpp_2m", num_inference_steps=6, **how),
    ]


def test_a_weight_of_one_gives_what_is_made_without_a_guide_to_the_last_bit(
    tiny_denoiser: Denoiser, pushed: Denoiser, tiny_bundle: Bundle, bundle: Bundle, target: np.ndarray,
    guide: CountingNetwork,
) -> None:  # fmt: skip
    for off, without in zip(plans(bundle, target, guide=1), plans(tiny_bundle, target), strict=True):
        assert torch.equal(sample(pushed, off.start()), sample(tiny_denoiser, without.start()))
    assert guide.rows == []


def test_a_guide_equal_to_the_network_changes_nothing(
    tiny_denoiser: Denoiser, tiny_bundle: Bundle, bundle: Bundle, target: np.ndarray
) -> None:
    schedule, prediction = tiny_denoiser.schedule, tiny_denoiser.prediction
    itself = Denoiser(tiny_denoiser.network, schedule, prediction, guide=tiny_denoiser)
    for plan, without in zip(plans(bundle, target), plans(tiny_bundle, target), strict=True):
        assert torch.allclose(sample(itself, plan.start()), sample(tiny_denoiser, without.start()), atol=1e-5)


def test_pushed_and_unpushed_rows_in_one_batch_equal_themselves_alone(
    pushed: Denoiser, bundle: Bundle, target: np.ndarray
) -> None:
    both = [*plans(bundle, target), *plans(bundle, target, guide=1), *plans(bundle, target, guide=1.4)]
    states = [state for plan in both for state in plan.start()]
    for state, mixed in zip(states, sample(pushed, states), strict=True):
        assert torch.allclose(sample(pushed, [state])[0], mixed, atol=1e-5)


def test_it_is_the_papers_formula_written_out(bundle: Bundle, guide: CountingNetwork) -> None:
    network, schedule = TinyNetwork().double(), bundle.schedule
    guide = guide.double()
    denoiser, worse = (
        Denoiser(net, schedule, Prediction.EPSILON, dtype=torch.float64) for net in (network, guide)
    )  # fmt: skip
    denoiser.guide = worse
    plan = make_plan(bundle, seed=5, sampler="ddim", num_inference_steps=9, guide=1.7)
    (state,) = plan.start()
    (made,) = sample(denoiser, [replace(state, x=state.x.double())])
    x = noise(5, 0, plan.shape).double()[None]
    sigma = schedule.sigma_256(16)
    for level, following in pairwise(plan.table.levels.tolist()):
        a, b, t = schedule.alpha_bar[level], schedule.alpha_bar[following], torch.tensor([level - 1])
        with torch.no_grad():
            r, r_guide = ((x - np.sqrt(1 - a) * net(x, t)) / np.sqrt(a) for net in (network, guide))
        if 1 <= sigma[level] <= 60:
            r = r_guide + 1.7 * (r - r_guide)
        x0 = r.clamp(-1, 1)
        x = np.sqrt(b) * x0 + np.sqrt((1 - b) / (1 - a)) * (x - np.sqrt(a) * x0)
    assert (made - x[0]).abs().max() < 1e-9


def test_the_guide_is_called_inside_its_interval_alone_and_for_the_rows_that_ask_for_it(
    pushed: Denoiser, bundle: Bundle, target: np.ndarray, guide: CountingNetwork
) -> None:
    asking, other = (make_plan(bundle, target, seed=1, mode="likeness", guide=weight) for weight in (1.5, 1.0))
    sigma = bundle.schedule.sigma_256(16)[asking.table.levels[:-1]]
    inside = (sigma >= 1) & (sigma <= 60)
    assert 0 < inside.sum() < len(inside)
    assert (asking.table.guide == np.where(inside, 0.5, 0)).all()
    sample(pushed, [*asking.start(), *other.start()])
    assert guide.rows == [1] * inside.sum()


def test_calling_a_denoiser_stays_unguided(pushed: Denoiser, tiny_denoiser: Denoiser) -> None:
    x, level = torch.randn(2, 3, 16, 16), torch.tensor([300, 900])
    assert torch.equal(pushed(x, level), tiny_denoiser(x, level))


@pytest.mark.parametrize("weight", [0.9, 3.1, float("nan")])
def test_a_weight_out_of_range_is_refused_by_name(bundle: Bundle, weight: float) -> None:
    with pytest.raises(InvalidInput) as refused:
        make_plan(bundle, guide=weight)
    assert (refused.value.field, refused.value.allowed) == ("guide", "1..3")


def test_a_model_without_a_guide_refuses_to_be_pushed_and_takes_one_as_off(tiny_bundle: Bundle) -> None:
    with pytest.raises(InvalidInput) as refused:
        make_plan(tiny_bundle, guide=1.5)
    assert (refused.value.code, refused.value.field) == ("no_guide", "guide")
    assert not make_plan(tiny_bundle, guide=1).table.guide.any()


def test_pixel_guidance_is_not_pushed(bundle: Bundle, target: np.ndarray) -> None:
    assert not make_plan(bundle, target, mode="pixel").table.guide.any()
    with pytest.raises(InvalidInput) as refused:
        make_plan(bundle, target, mode="pixel", guide=2)
    assert refused.value.field == "guide"


def test_the_bundles_own_weight_is_taken_unless_said_and_told(bundle: Bundle, target: np.ndarray) -> None:
    assert make_plan(bundle, target).parameters["guide"] == 2
    assert make_plan(bundle, target, guide=1.25).parameters["guide"] == 1.25


MakeEngine = Callable[..., StepEngine]


def test_the_engine_weighs_guided_calls_by_what_they_cost(pushed: Denoiser, bundle: Bundle) -> None:
    def engine(guide_cost: float) -> StepEngine:
        return StepEngine(pushed, max_rows=8, seconds_per_row=0.01, guide_cost=guide_cost, max_work=20)

    plan = make_plan(bundle, num_images=2, seed=0, num_inference_steps=9)
    guided = int((plan.table.guide != 0).sum())
    assert 0 < guided < 9
    light, heavy = engine(0.0), engine(1.0)
    light.admit("a", plan)
    assert light.backlog_seconds == pytest.approx(0.01 * 2 * 9)
    with pytest.raises(InvalidInput) as refused:
        heavy.admit("a", plan)
    assert refused.value.code == "too_much_work"
    heavy.max_work = 2 * (9 + guided)
    heavy.admit("a", plan)
    assert heavy.backlog_seconds == pytest.approx(0.01 * 2 * (9 + guided))


def test_the_time_left_counts_guided_calls_for_what_they_cost(pushed: Denoiser, bundle: Bundle) -> None:
    now = 0.0

    def clock() -> float:
        return now

    engine = StepEngine(pushed, max_rows=8, guide_cost=1.0, clock=clock)
    plan = make_plan(bundle, seed=0, num_inference_steps=9)
    engine.admit("a", plan)
    for position in range(8):
        now += float(plan.cost(1.0)[position])  # a second a call, two where it is guided
        progress = [event for _, event in engine.tick() if isinstance(event, Progress)]
        if position:  # the clock stands still inside a tick, so the first call took no time
            spent, rest = plan.cost(1.0)[1 : position + 1].sum(), plan.cost(1.0)[position + 1 :].sum()
            done = plan.cost(1.0)[: position + 1].sum()
            assert progress[0].eta_seconds == pytest.approx(spent / done * rest, abs=1e-3)


def test_a_guides_cost_is_measured_beside_the_network(pushed: Denoiser, tiny_denoiser: Denoiser) -> None:
    assert measure_guide_cost(tiny_denoiser, (3, 16, 16), 2) == 0
    assert measure_guide_cost(pushed, (3, 16, 16), 2) > 0
