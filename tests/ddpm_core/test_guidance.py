"""Every guidance is a displacement of the clean image towards the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm_core import schedule
from ddpm_core.denoiser import Denoiser, Prediction
from ddpm_core.guidance import (
    apart_displacement,
    detail,
    features,
    low_pass,
    low_pass_displacement,
    pixel_displacement,
    pixel_displacement_through,
)
from ddpm_core.sampling import SampleState, ddim_raw, noise, sample

from .conftest import TinyNetwork

Displacement = Callable[[Tensor, Tensor, Tensor], Tensor]
FORMS: dict[str, Displacement] = {
    "low-pass": lambda r, y, w: low_pass_displacement(r.clamp(-1, 1), y, w, [4] * len(w), torch.ones_like(w)),
    "low-pass grey": lambda r, y, w: low_pass_displacement(r.clamp(-1, 1), y, w, [16] * len(w), torch.zeros_like(w)),
    "pixel": lambda r, y, w: pixel_displacement(r, y, 0.1 * w),
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Displacement:
    return FORMS[request.param]


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    """Give (r, target), (5, 3, 16, 16): r within and outside [−1, 1]."""
    g = torch.Generator().manual_seed(0)
    return 1.5 * torch.randn(5, 3, 16, 16, generator=g), torch.rand(5, 3, 16, 16, generator=g) * 2 - 1


def test_strength_nought_moves_nothing(form: Displacement, images: tuple[Tensor, Tensor]) -> None:
    assert not form(*images, torch.zeros(5)).any()


def test_a_target_already_reached_moves_nothing(form: Displacement, images: tuple[Tensor, Tensor]) -> None:
    _, target = images
    assert not form(target, target, torch.ones(5)).any()


def test_the_image_comes_nearer_to_the_target(form: Displacement, images: tuple[Tensor, Tensor]) -> None:
    r, target = images
    x0 = r.clamp(-1, 1)
    moved = x0 + form(r, target, torch.ones(5))
    before, after = ((v - target).square().flatten(1).mean(1) for v in (x0, moved))
    assert (after < before).all()


def test_rows_of_different_strength_do_not_touch_each_other(form: Displacement, images: tuple[Tensor, Tensor]) -> None:
    r, target = images
    strengths = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    together = form(r, target, strengths)
    for i in range(5):
        alone = form(r[i : i + 1], target[i : i + 1], strengths[i : i + 1])
        assert torch.allclose(together[i], alone[0], atol=1e-6)


def test_rows_may_have_different_grids(images: tuple[Tensor, Tensor]) -> None:
    r, target = images
    x0, one = r.clamp(-1, 1), torch.ones(5)
    grids = [1, 4, 5, 11, 16]
    delta = low_pass_displacement(x0, target, one, grids, one)
    for i, grid in enumerate(grids):
        assert torch.allclose(delta[i], low_pass(target[i] - x0[i], grid), atol=1e-5)


def test_the_low_pass_keeps_a_flat_image_and_all_of_a_full_grid() -> None:
    flat, picture = torch.full((1, 3, 16, 16), 0.4), torch.rand(1, 3, 16, 16)
    for grid in (1, 3, 8, 15, 16):
        assert torch.allclose(low_pass(flat, grid), flat, atol=1e-6)
    assert torch.equal(low_pass(picture, 16), picture)


@pytest.mark.parametrize("grid", [2, 4, 8])
def test_the_low_pass_is_area_down_and_bicubic_up(grid: int) -> None:
    picture = torch.rand(2, 3, 16, 16)
    down = torch.nn.functional.interpolate(picture, size=(grid, grid), mode="area")
    up = torch.nn.functional.interpolate(down, size=(16, 16), mode="bicubic")
    assert torch.allclose(low_pass(picture, grid), up, atol=1e-5)


def test_detail_finer_than_the_grid_is_left_to_the_model() -> None:
    checker = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    assert low_pass(checker.expand(1, 3, 16, 16), 4).abs().max() < 1e-6


def test_without_chroma_the_colour_differences_stay(images: tuple[Tensor, Tensor]) -> None:
    r, target = images
    one = torch.ones(5)
    delta = low_pass_displacement(r.clamp(-1, 1), target, one, [4] * len(one), 0 * one)
    assert torch.allclose(delta[:, 0], delta[:, 1], atol=1e-6)
    assert torch.allclose(delta[:, 0], delta[:, 2], atol=1e-6)


NOT_SPARED = torch.zeros(4)


def _distance(image: Tensor, target: Tensor) -> Tensor:
    return 1 - torch.cosine_similarity(detail(image).flatten(1), detail(target).flatten(1))


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("side", [64, 96, 256])
def test_detail_too_near_to_the_targets_is_brought_to_the_distance_asked_for(side: int, share: float) -> None:
    target, own = torch.rand(2, 4, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    near = 0.8 * target + 0.3 * own
    asked, spared = torch.tensor([0.2, 0.5, 0.6, 1.0]), torch.full((4,), share)
    assert (_distance(near, target) < 0.1).all()
    delta = apart_displacement(near, target, asked, spared)
    assert torch.allclose(_distance(near + delta, target), asked, atol=1e-3)


def test_eyes_nose_and_mouth_are_spared_and_what_tells_photographs_apart_is_taken_elsewhere() -> None:
    target, own = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    near, asked, spared = 0.8 * target + 0.3 * own, torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0])
    taken = apart_displacement(near.expand(2, -1, -1, -1), target.expand(2, -1, -1, -1), asked, spared).abs()
    eye, hair = taken[:, :, 27:32, 18:26].mean((1, 2, 3)), taken[:, :, :16].mean((1, 2, 3))
    assert eye[1] == 0
    assert eye[0] > 0
    assert hair[1] > hair[0]


def test_eyes_nose_and_mouth_lie_where_the_framing_puts_them_at_every_size() -> None:
    for side in (64, 128, 256):
        at = features(side, torch.device("cpu"))
        place = at[:: side // 64, :: side // 64]
        assert place[30, 20] == place[30, 44] == place[48, 32] == 1
        assert place[8, 32] == place[62, 32] == place[32, 4] == 0
        assert torch.allclose(at, at.flip(-1), atol=1e-5)


@pytest.mark.parametrize("period", [6, 8, 10, 12])
@pytest.mark.parametrize("side", [64, 128])
def test_regular_stripes_are_taken_a_little_way_apart_by_a_little(side: int, period: int) -> None:
    """The detail of their detail is not their detail, so away from it they never come to resemble it less and less."""
    stripes = torch.sin(torch.arange(side) * 2 * torch.pi * 64 / side / period + 0.7).sign().expand(4, 3, side, side)
    asked = torch.tensor([0.005, 0.01, 0.015, 0.02])
    delta = apart_displacement(0.9 * stripes, stripes, asked, NOT_SPARED)
    assert delta.abs().max() < 1.5
    assert torch.allclose(_distance(0.9 * stripes + delta, stripes), asked, atol=1e-4)


def test_images_far_enough_from_the_target_are_left_alone_and_so_are_rows_that_ask_for_nothing() -> None:
    target, own = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert _distance(own, target) > 0.9
    assert not apart_displacement(own, target, torch.tensor([0.6]), NOT_SPARED[:1]).any()
    assert not apart_displacement(target, target, torch.tensor([0.0]), NOT_SPARED[:1]).any()


def test_of_the_target_itself_no_detail_is_left_but_all_that_is_coarse() -> None:
    target = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    left = target + apart_displacement(target, target, torch.tensor([0.6]), NOT_SPARED[:1])
    assert detail(left).norm() < 0.2 * detail(target).norm()
    assert torch.allclose(low_pass(left, 8), low_pass(target, 8), atol=0.05)


def test_pixel_guidance_is_the_course_loop_written_from_its_equations() -> None:
    """x' = √ᾱ'·clip(r + Δ) + √(1−ᾱ')·e with Δ = −(s/(M·ᾱ))·sign(clip(r) − y)·1[|r| ≤ 1] and the network's raw e."""
    ours = schedule.linear()
    network = TinyNetwork().double()
    denoiser = Denoiser(network, ours, Prediction.EPSILON, dtype=torch.float64)
    levels = ours.leading(40)
    assert levels[:2] == (976, 951)
    assert levels[-2:] == (1, 0)
    s, size = 50.0, 3 * 16 * 16
    y = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    table = ddim_raw(ours, levels)
    table = replace(table, pixel=s / (size * ours.alpha_bar[list(levels[:-1])]))
    state = SampleState(table, 0, noise(0, 0, (3, 16, 16)).double(), target=y)
    trace: list[SampleState] = []
    sample(denoiser, [state], on_step=trace.extend)
    x = state.x
    for (level, following), ours_there in zip(pairwise(levels), trace, strict=True):
        a, b = ours.alpha_bar[level], ours.alpha_bar[following]
        with torch.no_grad():
            e = network(x[None], torch.tensor([level - 1]))[0]
        r = (x - np.sqrt(1 - a) * e) / np.sqrt(a)
        delta = -(s / (size * a)) * torch.sign(r.clamp(-1, 1) - y) * (r.abs() <= 1)
        x = np.sqrt(b) * (r + delta).clamp(-1, 1) + np.sqrt(1 - b) * e
        assert float((ours_there.x - x).abs().max()) < 1e-9


def test_the_variant_through_the_network_follows_the_gradient_that_differences_give() -> None:
    """One step of the course's loop with x in front of the network, its gradient by central differences."""
    cosine = schedule.cosine()
    denoiser = Denoiser(TinyNetwork().double(), cosine, Prediction.EPSILON, dtype=torch.float64)
    random = torch.Generator().manual_seed(3)
    x = 0.5 * torch.randn(2, 3, 4, 4, generator=random, dtype=torch.float64)
    y = torch.rand(2, 3, 4, 4, generator=random, dtype=torch.float64) * 2 - 1
    level, s, m = torch.tensor([300, 120]), 5.0, 48
    a = torch.tensor(cosine.alpha_bar[level.numpy()])

    def loss(x: Tensor) -> Tensor:
        return s * (denoiser(x, level).clamp(-1, 1) - y).abs().flatten(1).mean(1)

    gradient = torch.empty_like(x)
    for place in np.ndindex(3, 4, 4):
        bump = torch.zeros_like(x)
        bump[(slice(None), *place)] = 1e-6
        gradient[(slice(None), *place)] = (loss(x + bump) - loss(x - bump)) / 2e-6
    r = denoiser(x, level)
    wanted = (r - gradient / a.sqrt().view(-1, 1, 1, 1)).clamp(-1, 1) - r.clamp(-1, 1)
    with torch.inference_mode():  # as the tick does
        delta = pixel_displacement_through(lambda x: denoiser(x, level), x, y, s / (m * a), a.sqrt())
    assert (delta - wanted).abs().max() < 1e-6
    assert delta.abs().max() > 0.01


def test_both_variants_agree_where_the_noise_does_not_depend_on_the_image() -> None:
    cosine = schedule.cosine()
    x, y = torch.linspace(-0.6, 0.6, 48).view(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    a = torch.tensor(cosine.alpha_bar[[400]], dtype=torch.float32)
    predict = lambda x: (x - (1 - a).sqrt() * 0.1) / a.sqrt()  # noqa: E731
    step = 0.2 / a
    through = pixel_displacement_through(predict, x, y, step, a.sqrt())
    assert torch.allclose(through, pixel_displacement(predict(x), y, step), atol=1e-6)
