"""What the scheduler says of the clip is obeyed as diffusers obeys it, and every other setting has its place."""

from __future__ import annotations

import inspect
import math
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDPMScheduler

from ddpm_core import clip, schedule
from ddpm_core.denoiser import Denoiser, Prediction
from ddpm_core.errors import InvalidInput
from ddpm_core.importers.folder import SCHEDULERS
from ddpm_core.sampling import Batch, Sampler, SampleState, advance, build
from ddpm_core.schedule import HARMLESS, LIMITED, OBEYED, from_diffusers

FORMER = {"tensor_format", "timestep_values", "num_inference_steps"}


def test_the_settings_of_diffusers_schedulers_are_those_of_the_table_each_in_one_place() -> None:
    theirs = {
        key
        for name in SCHEDULERS
        for key in inspect.signature(getattr(diffusers, name).__init__).parameters
        if key not in ("self", "kwargs")
    }
    assert theirs == (OBEYED | HARMLESS | LIMITED.keys()) - FORMER
    assert len(OBEYED) + len(HARMLESS) + len(LIMITED) == len(OBEYED | HARMLESS | LIMITED.keys())


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of diffusers, with numpy 2
@pytest.mark.parametrize("name", SCHEDULERS)
def test_what_diffusers_has_by_default_is_taken(name: str) -> None:
    assert from_diffusers(getattr(diffusers, name)().config).num_levels == 1000


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("timestep_type", "continuous"),
        ("use_flow_sigmas", True),
        ("use_dynamic_shifting", True),
        ("shift_terminal", 0.1),
        ("sigma_min", 0.002),
        ("sigma_max", 700.0),
        ("rescale_betas_zero_snr", True),
        ("variance_type", "learned_range"),
        ("prediction_type", "flow_prediction"),
        ("a_setting_of_tomorrow", 3),
        ("clip_sample_range", 0),
        ("clip_sample_range", "wide"),
    ],
)
def test_what_makes_another_process_or_is_not_known_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=key) as refusal:
        from_diffusers({key: value})
    assert refusal.value.field == key


SETTINGS: list[dict[str, Any]] = [
    {},
    {"clip_sample_range": 3.0},
    {"clip_sample": False},
    {"thresholding": True, "sample_max_value": 3.0},
    {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.9, "clip_sample": False},
]


class Says(torch.nn.Module):
    """Predicts one clean image, whatever it is given."""

    def __init__(self, image: torch.Tensor) -> None:
        super().__init__()
        self.image = image

    def forward(self, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return self.image[: len(x)]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_tick_cuts_as_diffusers_does(settings: dict[str, Any]) -> None:
    theirs = DDPMScheduler(prediction_type="sample", **settings)
    wild = 4 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    denoiser = Denoiser(Says(wild), from_diffusers(theirs.config), Prediction.SAMPLE)
    table = build(Sampler.DDIM, denoiser.schedule, (1, 0))
    batch = Batch.of([SampleState(table, seed, torch.zeros(3, 8, 8)) for seed in range(2)])
    expected = theirs.step(wild, 0, torch.zeros_like(wild)).pred_original_sample
    for state, image in zip(advance(denoiser, batch), expected, strict=True):
        assert state.x0_prev is not None
        assert torch.allclose(state.x0_prev, image, atol=1e-6)


def test_each_image_is_cut_for_itself() -> None:
    cut = clip.Clip(share=0.9, most=math.inf)
    images = torch.randn(2, 3, 8, 8) * torch.tensor([1.0, 9.0]).view(2, 1, 1, 1)
    assert torch.equal(cut(images)[:1], cut(images[:1]))


def test_a_schedule_that_says_nothing_cuts_at_one() -> None:
    assert clip.from_diffusers(schedule.cosine().config) == clip.Clip(1.0)
