"""From what is asked for to a table: modes, the resemblance curve, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm_core import schedule
from ddpm_core.bundle import Bundle, Manifest, SamplingDefaults, Statistics, Tone
from ddpm_core.curve import APART, curve
from ddpm_core.denoiser import Denoiser, Prediction
from ddpm_core.domain import Domain
from ddpm_core.errors import InvalidInput
from ddpm_core.gate import Judgement
from ddpm_core.guidance import detail
from ddpm_core.pixels import to_tensor
from ddpm_core.plan import RESEMBLANCE, Mode, Plan, make_plan, most_calls
from ddpm_core.sampling import sample
from ddpm_core.schedule import NoiseSchedule
from ddpm_core.tone import pull

from .conftest import GaussianDenoiser


def test_a_mode_names_a_point_of_the_curve(tiny_bundle: Bundle, target: np.ndarray) -> None:
    for mode, position in RESEMBLANCE.items():
        named = make_plan(tiny_bundle, target, mode=mode, seed=1)
        placed = make_plan(tiny_bundle, target, resemblance=position, seed=1)
        assert str(named.table) == str(placed.table)
        assert named.parameters["resemblance"] == position


def test_a_point_and_a_position_exclude_each_other(tiny_bundle: Bundle, target: np.ndarray) -> None:
    with pytest.raises(ValueError, match="exclude"):
        make_plan(tiny_bundle, target, resemblance=0.3, point=curve(0.5))


@pytest.mark.parametrize(
    ("mode", "sigma", "stop", "grid", "calls"),
    [("celebrity", 6.0, 0.5, 16, 10), ("likeness", 5.0, 0.5, 22, 10), ("faithful", 4.0, 0.4, 28, 10)],
)
def test_the_modes_are_the_measured_points(
    cosine: NoiseSchedule, mode: str, sigma: float, stop: float, grid: int, calls: int
) -> None:
    bundle = bundle_of(cosine, 64)
    plan = make_plan(bundle, np.zeros((64, 64, 3), np.uint8), mode=mode)
    sigmas = cosine.sigma_256(64)[plan.table.levels[:-1]]
    assert plan.calls == calls
    assert sigmas[0] == pytest.approx(sigma, rel=0.03)
    assert set(plan.table.grid) == {grid}
    guided = plan.table.weight > 0
    assert (sigmas[guided] > stop).all()
    assert (sigmas[~guided] <= stop).all()
    assert (np.diff(plan.table.weight) <= 0).all()


def test_a_form_can_know_the_most_calls_before_they_are_asked_for(tiny_bundle: Bundle, target: np.ndarray) -> None:
    most = most_calls(tiny_bundle)
    asked = [({"mode": "pixel"}, most["unguided"])]
    asked += [({"resemblance": place / 20}, calls) for place, calls in enumerate(most["guided"])]
    for how, calls in asked:
        assert make_plan(tiny_bundle, target, num_inference_steps=calls, **how).calls == calls
        with pytest.raises(InvalidInput, match="num_inference_steps"):
            make_plan(tiny_bundle, target, num_inference_steps=calls + 1, **how)
    assert make_plan(tiny_bundle, num_inference_steps=most["unguided"]).calls == most["unguided"]


@pytest.mark.parametrize(("usual", "calls"), [(25, (10, 10, 10)), (8, (3, 3, 3)), (50, (20, 20, 20)), (1, (1, 1, 1))])
def test_a_model_of_fewer_calls_takes_fewer_of_them_in_every_mode(
    cosine: NoiseSchedule, usual: int, calls: tuple[int, ...]
) -> None:
    ours = bundle_of(cosine, 64)
    defaults = SamplingDefaults(num_inference_steps=usual)
    bundle = replace(ours, manifest=ours.manifest.model_copy(update={"defaults": defaults}))
    target = np.zeros((64, 64, 3), np.uint8)
    assert tuple(make_plan(bundle, target, mode=mode).calls for mode in ("celebrity", "likeness", "faithful")) == calls
    assert make_plan(bundle).calls == usual
    assert make_plan(bundle, target, num_inference_steps=7).calls == 7
    assert make_plan(bundle, target, point=curve(0.5)).calls == 10  # said, as it is


def test_more_resemblance_starts_nearer_and_pulls_finer_structure() -> None:
    points = [curve(r) for r in np.linspace(0, 1, 41)]
    for name, sign in (
        ("sigma_start", -1),
        ("sigma_stop", -1),
        ("grid", 1),
        ("weight", 1),
        ("chroma", 1),
        ("calls", -1),
        ("apart", -1),
    ):
        values = np.array([getattr(point, name) for point in points])
        assert (np.diff(values) * sign >= 0).all(), name


def test_every_position_has_a_plan_at_every_size(cosine: NoiseSchedule) -> None:
    for size in (16, 64, 256):
        for noise_schedule in (cosine, schedule.linear()):
            bundle = bundle_of(noise_schedule, size)
            for resemblance in np.linspace(0, 1, 11):
                plan = make_plan(bundle, np.zeros((size, size, 3), np.uint8), resemblance=float(resemblance))
                assert plan.table.grid.max() <= size


def test_resemblance_brings_the_image_nearer_to_the_target(tiny_bundle: Bundle, target: np.ndarray) -> None:
    """Of a data set that knows nothing of the target, by the perfect denoiser."""
    ours = tiny_bundle.schedule
    denoiser = Denoiser(GaussianDenoiser(ours, 0.0, 0.25), ours, Prediction.EPSILON)
    y = to_tensor(target)
    distances = []
    for resemblance in np.linspace(0, 1, 9):
        plan = make_plan(tiny_bundle, target, resemblance=float(resemblance), num_images=4, seed=0)
        x = sample(denoiser, plan.start())
        distances.append(float((x - y).square().mean().sqrt()))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.5 * distances[0]


@pytest.mark.parametrize("mode", RESEMBLANCE)
def test_no_mode_gives_the_photograph_back_even_by_a_model_that_knows_no_other_picture(
    cosine: NoiseSchedule, mode: Mode
) -> None:
    bundle = bundle_of(cosine, 64)
    photograph = np.random.default_rng(0).integers(64, 192, (64, 64, 3)).astype(np.uint8)
    y = to_tensor(photograph)
    denoiser = Denoiser(GaussianDenoiser(cosine, y, 1e-3), cosine, Prediction.EPSILON)

    def distance(plan: Plan) -> torch.Tensor:
        x = sample(denoiser, plan.start())
        return 1 - torch.cosine_similarity(detail(x).flatten(1), detail(y[None]).flatten(1))

    plan = make_plan(bundle, photograph, mode=mode, num_images=3, seed=0)
    assert (distance(plan) > APART - 0.01).all()
    free = replace(plan, table=replace(plan.table, apart=np.zeros(plan.calls)))
    assert (distance(free) < 0.05).all()


@pytest.mark.parametrize("domain", Domain)
def test_only_of_human_faces_the_features_are_spared_by_what_keeps_photographs_apart(
    cosine: NoiseSchedule, domain: Domain
) -> None:
    bundle, aim = bundle_of(cosine, 64, domain), np.zeros((64, 64, 3), np.uint8)
    plan = make_plan(bundle, aim, mode="likeness", seed=0)
    assert (plan.table.spared > 0).all() == (domain is Domain.HUMAN_FACE)
    faceless = make_plan(bundle, aim, mode="likeness", seed=0, judgement=Judgement(has_face=False))
    assert not faceless.table.spared.any()


def test_linear_and_cosine_models_look_alike_at_the_same_resemblance(tiny_bundle: Bundle, target: np.ndarray) -> None:
    y = to_tensor(target)

    def distance(noise_schedule: NoiseSchedule) -> float:
        bundle = replace(tiny_bundle, schedule=noise_schedule)
        denoiser = Denoiser(GaussianDenoiser(noise_schedule, 0.0, 0.25), noise_schedule, Prediction.EPSILON)
        plan = make_plan(bundle, target, mode="likeness", num_images=8, seed=0)
        return float((sample(denoiser, plan.start()) - y).square().mean().sqrt())

    assert distance(schedule.linear()) == pytest.approx(distance(schedule.cosine()), rel=0.1)


def test_without_a_selfie_a_plan_starts_from_noise_at_the_top(tiny_bundle: Bundle) -> None:
    plan = make_plan(tiny_bundle, num_inference_steps=10, seed=3)
    assert plan.table.levels[0] == tiny_bundle.schedule.num_levels
    assert plan.target is None
    assert not plan.table.weight.any()
    assert float(plan.start()[0].x.std()) == pytest.approx(1, abs=0.1)


def test_the_sampler_goes_by_the_mode_unless_it_is_said(tiny_bundle: Bundle, target: np.ndarray) -> None:
    taken = {mode: make_plan(tiny_bundle, target, mode=mode).parameters["sampler"] for mode in Mode}
    assert taken.pop(Mode.PIXEL) == "ddim"
    assert set(taken.values()) == {"ddpm"}
    assert make_plan(tiny_bundle, target, sampler="dpmpp_2m").parameters["sampler"] == "dpmpp_2m"


def test_a_bundle_may_ask_for_a_sampler_of_its_own(tiny_bundle: Bundle, target: np.ndarray) -> None:
    asked = SamplingDefaults(sampler="lcm", num_inference_steps=15)
    bundle = replace(tiny_bundle, manifest=tiny_bundle.manifest.model_copy(update={"defaults": asked}))
    taken = {mode: make_plan(bundle, target, mode=mode).parameters["sampler"] for mode in Mode}
    assert taken.pop(Mode.PIXEL) == "ddim"
    assert set(taken.values()) == {"lcm"}
    assert make_plan(bundle, target, sampler="ddpm").parameters["sampler"] == "ddpm"


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("mode", [Mode.NONE, Mode.CELEBRITY, Mode.FAITHFUL])
def test_lcm_makes_its_last_call_where_an_eye_is_still_seen(cosine: NoiseSchedule, size: int, mode: Mode) -> None:
    bundle = bundle_of(cosine, size)
    plan = make_plan(bundle, np.zeros((size, size, 3), np.uint8), mode=mode, sampler="lcm", num_inference_steps=6)
    assert plan.calls == 6
    assert bundle.schedule.sigma_256(size)[plan.table.levels[-2]] == pytest.approx(0.7, rel=0.05)


@pytest.mark.parametrize("mode", [Mode.NONE, Mode.CELEBRITY, Mode.LIKENESS])
def test_lcm_makes_calls_of_little_noise_in_pairs_and_no_other_sampler_does(
    tiny_bundle: Bundle, target: np.ndarray, mode: Mode
) -> None:
    plan = make_plan(tiny_bundle, target, mode=mode, sampler="lcm", num_inference_steps=8)
    at = plan.table.levels[:-1]
    sigma = tiny_bundle.schedule.sigma_256(tiny_bundle.manifest.image_size)[at]
    paired = plan.table.antithetic != 0
    assert np.array_equal(paired[1:-1], sigma[1:-1] < 5)
    assert not paired[0]  # its noise is what makes one face differ from the next
    assert not paired[-1]  # made alone, it gives skin and hair
    noise_in_x = np.sqrt(1 - tiny_bundle.schedule.alpha_bar[at])
    assert np.allclose(plan.table.antithetic[paired], noise_in_x[paired])
    assert np.array_equal(plan.cost(0.5), np.where(paired, 2, 1) * np.where(plan.table.guide == 0, 1, 1.5))
    for other in ("ddpm", "ddim", "dpmpp_2m"):
        assert not make_plan(tiny_bundle, target, mode=mode, sampler=other).table.antithetic.any()


def test_minus_one_is_a_random_seed_that_is_reported(tiny_bundle: Bundle) -> None:
    plans = [make_plan(tiny_bundle) for _ in range(4)]
    assert len({plan.seeds for plan in plans}) == 4
    assert all(plan.parameters["seed"] == plan.seeds[0] for plan in plans)


def test_a_grey_model_gets_a_grey_target(tiny_bundle: Bundle, target: np.ndarray) -> None:
    bundle = replace(tiny_bundle, manifest=tiny_bundle.manifest.model_copy(update={"channels": 1}))
    plan = make_plan(bundle, target)
    assert plan.target is not None
    assert plan.target.shape == plan.start()[0].x.shape == (1, 16, 16)
    assert float(plan.target.abs().max()) <= 1 + 1e-6


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_images", 0),
        ("num_images", 17),
        ("seed", -2),
        ("seed", 2**32),
        ("eta", -0.1),
        ("eta", float("nan")),
        ("resemblance", 1.1),
        ("resemblance", float("inf")),
        ("guidance_loss_scale", -1),
        ("num_inference_steps", 0),
        ("num_inference_steps", 1001),
        ("sampler", "euler"),
        ("mode", "twin"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(
    tiny_bundle: Bundle, target: np.ndarray, field: str, value: object
) -> None:
    with pytest.raises(InvalidInput) as caught:
        make_plan(tiny_bundle, target, **{field: value})
    assert caught.value.field == field
    assert caught.value.allowed


def test_a_guided_mode_without_a_selfie_is_refused(tiny_bundle: Bundle) -> None:
    with pytest.raises(InvalidInput, match="needs an image"):
        make_plan(tiny_bundle, mode="likeness")


@pytest.mark.parametrize(
    "how",
    [{"mode": "none", "resemblance": 0.5}, {"mode": "pixel", "resemblance": 0.5}, {"mode": "pixel", "sampler": "ddpm"}],
)
def test_what_contradicts_is_refused(tiny_bundle: Bundle, target: np.ndarray, how: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as caught:
        make_plan(tiny_bundle, target, **how)
    assert caught.value.code == "conflict"


def bundle_of(noise_schedule: NoiseSchedule, size: int, domain: Domain = Domain.ANY) -> Bundle:
    manifest = Manifest(name="tiny", version="1.0", domain=domain, image_size=size, prediction_type=Prediction.EPSILON)
    return Bundle(Path("tiny"), manifest, noise_schedule)


def test_targets_keep_their_colours_on_the_way_to_a_tensor(target: np.ndarray) -> None:
    from ddpm_core.pixels import to_pixels

    assert np.array_equal(to_pixels(to_tensor(target)), target)
    assert torch.equal(to_tensor(target)[:, 0, 0], torch.tensor([-1.0, 1.0, -1.0]))


def test_auto_follows_a_usual_face_as_celebrity_does(tiny_bundle: Bundle, target: np.ndarray) -> None:
    for judgement in (Judgement(), Judgement(score=0.3, has_face=True), Judgement(score=0.3)):
        plan = make_plan(tiny_bundle, target, mode="auto", judgement=judgement)
        assert (plan.parameters["mode"], plan.parameters["resemblance"]) == ("celebrity", RESEMBLANCE[Mode.CELEBRITY])
        assert plan.warnings == ()


@pytest.mark.parametrize(
    ("judgement", "code"),
    [
        (Judgement(score=9.0, has_face=True), "strange_target"),
        (Judgement(score=9.0, has_face=False), "strange_target"),
        (Judgement(has_face=False), "no_face_to_follow"),
    ],
)
def test_auto_says_what_it_does_with_a_strange_target_and_follows_least_what_has_no_face(
    tiny_bundle: Bundle, target: np.ndarray, judgement: Judgement, code: str
) -> None:
    plan = make_plan(tiny_bundle, target, mode="auto", judgement=judgement)
    place = 0 if judgement.has_face is False else RESEMBLANCE[Mode.CELEBRITY]
    assert (plan.parameters["mode"], plan.parameters["resemblance"]) == ("celebrity", place)
    ((said, message),) = plan.warnings
    assert said == code
    assert "celebrity" in message


def test_what_was_asked_for_is_kept_and_only_warned_about(tiny_bundle: Bundle, target: np.ndarray) -> None:
    strange = Judgement(score=9.0, has_face=False)
    faithful = make_plan(tiny_bundle, target, mode="faithful", judgement=strange)
    assert faithful.parameters["resemblance"] == RESEMBLANCE[Mode.FAITHFUL]
    assert [code for code, _ in faithful.warnings] == ["strange_target"]
    placed = make_plan(tiny_bundle, target, resemblance=0.9, judgement=strange)
    assert placed.parameters["resemblance"] == 0.9
    assert [code for code, _ in placed.warnings] == ["strange_target"]
    assert make_plan(tiny_bundle, target, mode="none", judgement=strange).warnings == ()


def test_celebrity_takes_least_from_a_picture_without_a_face(tiny_bundle: Bundle, target: np.ndarray) -> None:
    faceless = Judgement(has_face=False)
    assert make_plan(tiny_bundle, target, mode="celebrity", judgement=faceless).parameters["resemblance"] == 0
    for kept in ({"mode": "likeness"}, {"mode": "celebrity", "resemblance": 0.3}):
        plan = make_plan(tiny_bundle, target, judgement=faceless, **kept)
        assert plan.parameters["resemblance"] == kept.get("resemblance", RESEMBLANCE[Mode.LIKENESS])


def test_only_a_target_that_is_strange_or_faceless_is_drawn_to_the_tone_that_the_model_knows(
    tiny_bundle: Bundle, target: np.ndarray
) -> None:
    tone = Tone(mean=(0.5, 0.5, 0.5), std=(0.1, 0.1, 0.1))
    manifest = tiny_bundle.manifest.model_copy(update={"statistics": Statistics(tone=tone)})
    bundle = replace(tiny_bundle, manifest=manifest)
    usual, strange, faceless = (
        make_plan(bundle, target, mode="celebrity", judgement=judgement).target
        for judgement in (Judgement(score=0.0), Judgement(score=9.0), Judgement(score=0.0, has_face=False))
    )
    pulled = pull(to_tensor(target), tone)
    for aimed, wanted in ((usual, to_tensor(target)), (strange, pulled), (faceless, pulled)):
        assert aimed is not None
        assert torch.equal(aimed, wanted)
