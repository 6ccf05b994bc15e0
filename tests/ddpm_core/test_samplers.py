"""Every sampler: parity with diffusers, an exact oracle, and one contract for all of them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from unittest.mock import patch as patched

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, LCMScheduler
from torch import Tensor

from ddpm_core import schedule
from ddpm_core.denoiser import Denoiser, Prediction
from ddpm_core.errors import InvalidInput
from ddpm_core.sampling import Batch, Sampler, SampleState, StepTable, advance, build, ddim, ddpm, noise, sample
from ddpm_core.schedule import NoiseSchedule

from .conftest import GaussianDenoiser, TinyNetwork

T = 1000
SCHEDULES = {"linear": ("linear", schedule.linear), "cosine": ("squaredcos_cap_v2", schedule.cosine)}


@pytest.fixture(params=SCHEDULES)
def setting(request: pytest.FixtureRequest) -> tuple[str, NoiseSchedule]:
    """Give a beta schedule's name in diffusers and ours, with ᾱ exactly as diffusers holds it."""
    name, ours = SCHEDULES[request.param]
    theirs = DDPMScheduler(num_train_timesteps=T, beta_schedule=name).alphas_cumprod.double().numpy()
    assert np.allclose(ours().alpha_bar[1:], theirs, rtol=1e-4, atol=1e-9)
    return name, NoiseSchedule(np.concatenate([[1.0], theirs]), {})


class Exact(Denoiser):
    """A denoiser in float64 throughout."""

    def __init__(self, network: torch.nn.Module, noise_schedule: NoiseSchedule) -> None:
        super().__init__(network, noise_schedule, Prediction.EPSILON, dtype=torch.float64)


def trailing(steps: int) -> tuple[int, ...]:
    """The levels that diffusers calls trailing."""
    return tuple(round(Fraction(T * (steps - k), steps)) for k in range(steps + 1))


def start() -> Tensor:
    return noise(1, 0, (3, 16, 16)).double()


def run_ours(denoiser: Denoiser, table: StepTable) -> list[Tensor]:
    trace: list[Tensor] = []
    sample(denoiser, [SampleState(table, 1, start())], on_step=lambda states: trace.append(states[0].x))
    return trace


def run_theirs(network: torch.nn.Module, scheduler: object, steps: int, **kwargs: object) -> list[Tensor]:
    """The reference loop of diffusers' own pipelines, with our noise."""
    scheduler.set_timesteps(steps)
    x, trace = start()[None], []
    for k, t in enumerate(scheduler.timesteps):
        z = noise(1, k + 1, (3, 16, 16)).double()[None]
        with torch.no_grad():
            epsilon = network(x, t[None])
        more = {**kwargs, "variance_noise": z} if kwargs.get("eta") else kwargs
        with patched("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, z=z, **__: z):
            x = scheduler.step(epsilon, t, x, **more).prev_sample
        trace.append(x[0])
    return trace


def worst(ours: list[Tensor], theirs: list[Tensor]) -> float:
    assert len(ours) == len(theirs)
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 50, 250])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_diffusers_ddim(setting: tuple[str, NoiseSchedule], steps: int, eta: float) -> None:
    name, ours = setting
    ref = DDIMScheduler(num_train_timesteps=T, beta_schedule=name, timestep_spacing="trailing", set_alpha_to_one=True)
    ref.alphas_cumprod = ref.alphas_cumprod.double()
    ref.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    network = TinyNetwork().double()
    theirs = run_theirs(network, ref, steps, eta=eta, use_clipped_model_output=True)
    assert worst(run_ours(Exact(network, ours), ddim(ours, trailing(steps), eta)), theirs) < 1e-10


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("steps", [2, 10, 100])
def test_ddpm_is_diffusers_ddpm(setting: tuple[str, NoiseSchedule], steps: int, variance: str) -> None:
    name, ours = setting
    ref = DDPMScheduler(num_train_timesteps=T, beta_schedule=name, timestep_spacing="trailing", variance_type=variance)
    ref.alphas_cumprod = ref.alphas_cumprod.double()
    ref.one = torch.tensor(1.0, dtype=torch.float64)
    network = TinyNetwork().double()
    table = ddpm(ours, trailing(steps), fixed_large=variance == "fixed_large")
    # The last call is left out: diffusers adds noise to the finished image with fixed_large and skipped levels.
    assert worst(run_ours(Exact(network, ours), table)[:-1], run_theirs(network, ref, steps)[:-1]) < 1e-9


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("steps", [2, 5, 10, 20, 50])
def test_dpmpp_2m_is_diffusers_multistep(setting: tuple[str, NoiseSchedule], steps: int) -> None:
    name, ours = setting
    ref = DPMSolverMultistepScheduler(
        num_train_timesteps=T,
        beta_schedule=name,
        timestep_spacing="trailing",
        solver_order=2,
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
        final_sigmas_type="zero",
        lower_order_final=True,
        thresholding=True,
        sample_max_value=1.0,
    )
    ref.set_timesteps(steps)
    levels = trailing(steps)
    sigmas = torch.tensor(ours.sigma[list(levels)], dtype=torch.float64)
    original = ref.set_timesteps

    def set_exact(n: int) -> None:
        original(n)
        ref.sigmas = sigmas

    ref.set_timesteps = set_exact
    network = TinyNetwork().double()
    theirs = run_theirs(network, ref, steps)
    assert worst(run_ours(Exact(network, ours), build(Sampler.DPMPP_2M, ours, levels)), theirs) < 1e-5


@pytest.mark.parametrize("steps", [2, 5, 10, 50])
def test_lcm_is_diffusers_lcm(setting: tuple[str, NoiseSchedule], steps: int) -> None:
    _, ours = setting
    # With this scaling the share of the noisy picture that is let through is nought.
    ref = LCMScheduler(num_train_timesteps=T, clip_sample=True, timestep_scaling=1e12)
    ref.alphas_cumprod = torch.tensor(ours.alpha_bar[1:])
    levels = trailing(steps)
    original = ref.set_timesteps
    ref.set_timesteps = lambda _: original(timesteps=[level - 1 for level in levels[:-1]])
    network = TinyNetwork().double()
    with patched(
        "diffusers.schedulers.scheduling_lcm.randn_tensor", lambda *_, **__: noise(1, ref.step_index + 1, (3, 16, 16))
    ):
        theirs = run_theirs(network, ref, steps)
    assert (
        worst(run_ours(Exact(network, ours), build(Sampler.LCM, ours, levels)), theirs) < 1e-6
    )  # its scaling is in float32


# --- The oracle: of Gaussian data the perfect denoiser is known, so samples must have the data's mean and deviation.


@pytest.mark.parametrize(
    ("sampler", "eta", "steps"),
    [(Sampler.DDPM, 0.0, 500), (Sampler.DDIM, 0.0, 250), (Sampler.DDIM, 0.7, 250), (Sampler.DPMPP_2M, 0.0, 50)],
)
def test_samplers_follow_the_marginals_of_a_gaussian_data_set(sampler: Sampler, eta: float, steps: int) -> None:
    ours = schedule.linear()
    mean, deviation = 0.3, 0.12
    denoiser = Exact(GaussianDenoiser(ours, mean, deviation**2), ours)
    table = build(sampler, ours, ours.karras(T, steps), eta=eta)
    trace: list[SampleState] = []
    sample(denoiser, [SampleState(table, 1, noise(1, 0, (1, 128, 128)).double())], on_step=trace.extend)
    # Up to the last call, which gives the posterior mean and so loses the deviation below the last level.
    for state in trace[:-1]:
        a = ours.alpha_bar[table.levels[state.position]]
        assert float(state.x.mean()) == pytest.approx(np.sqrt(a) * mean, abs=4 / 128)  # four deviations
        assert float(state.x.std()) == pytest.approx(np.sqrt(a * deviation**2 + 1 - a), rel=0.05)


@pytest.mark.parametrize("sampler", [Sampler.DDPM, Sampler.DDIM, Sampler.DPMPP_2M])
def test_with_every_level_taken_samples_are_the_data_set(sampler: Sampler) -> None:
    ours = schedule.linear()
    denoiser = Exact(GaussianDenoiser(ours, 0.3, 0.12**2), ours)
    x = sample(denoiser, [SampleState(build(sampler, ours, ours.karras(T, T)), 2, noise(2, 0, (1, 128, 128)).double())])
    assert float(x.mean()) == pytest.approx(0.3, abs=0.005)
    assert float(x.std()) == pytest.approx(0.12, rel=0.04)


def test_lcm_loses_what_a_network_does_not_finish_in_one_call() -> None:
    """The oracle gives the mean of all that may be meant, so each call takes something of the deviation away."""
    ours = schedule.linear()
    denoiser = Exact(GaussianDenoiser(ours, 0.3, 0.12**2), ours)
    table = build(Sampler.LCM, ours, ours.karras(T, 20))
    x = sample(denoiser, [SampleState(table, 2, noise(2, 0, (1, 128, 128)).double())])
    assert float(x.mean()) == pytest.approx(0.3, abs=0.005)
    assert float(x.std()) < 0.1


# --- The contract of every sampler.

TABLES: dict[str, Callable[[NoiseSchedule, tuple[int, ...]], StepTable]] = {
    "ddpm": lambda s, levels: build(Sampler.DDPM, s, levels),
    "ddim": lambda s, levels: build(Sampler.DDIM, s, levels),
    "ddim eta 0.5": lambda s, levels: build(Sampler.DDIM, s, levels, eta=0.5),
    "ddim eta 1": lambda s, levels: build(Sampler.DDIM, s, levels, eta=1.0),
    "dpmpp_2m": lambda s, levels: build(Sampler.DPMPP_2M, s, levels),
    "lcm": lambda s, levels: build(Sampler.LCM, s, levels),
}


@pytest.fixture(params=TABLES)
def make(request: pytest.FixtureRequest) -> Callable[[NoiseSchedule, tuple[int, ...]], StepTable]:
    return TABLES[request.param]


Make = Callable[[NoiseSchedule, tuple[int, ...]], StepTable]


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 48, 999, 1000])
def test_a_table_has_one_row_a_call_and_ends_at_the_clean_image(make: Make, cosine: NoiseSchedule, steps: int) -> None:
    table = make(cosine, cosine.karras(T, steps))
    assert len(table) == steps
    assert table.levels[0] == T
    assert table.levels[-1] == 0
    # The last call gives x0 itself: no noise, nothing of the state.
    assert table.A[-1] == table.D[-1] == table.B1[-1] == 0
    assert table.B0[-1] == table.shift[-1] == 1


@pytest.mark.parametrize("steps", [1, 4, 50])
def test_a_row_carries_a_known_image_along_the_noise_line(make: Make, cosine: NoiseSchedule, steps: int) -> None:
    """With a perfect, constant prediction c the signal part of the state is √ᾱ'·c at every level."""
    table = make(cosine, cosine.karras(T, steps))
    a, a_next = cosine.alpha_bar[table.levels[:-1]], cosine.alpha_bar[table.levels[1:]]
    assert np.allclose(table.A * np.sqrt(a) + table.B0 + table.B1, np.sqrt(a_next), atol=1e-12)


@pytest.mark.parametrize("steps", [1, 4, 50])
def test_a_row_keeps_the_variance_of_the_noise(cosine: NoiseSchedule, steps: int) -> None:
    for eta in (0.0, 0.5, 1.0):
        table = ddim(cosine, cosine.karras(T, steps), eta)
        a, a_next = cosine.alpha_bar[table.levels[:-1]], cosine.alpha_bar[table.levels[1:]]
        assert np.allclose(table.A**2 * (1 - a) + table.D**2, 1 - a_next, atol=1e-12)


def test_sampling_twice_gives_the_same_image_and_another_seed_another(make: Make, tiny_denoiser: Denoiser) -> None:
    ours = tiny_denoiser.schedule
    table = make(ours, ours.karras(T, 6))

    def image(seed: int) -> Tensor:
        return sample(tiny_denoiser, [SampleState(table, seed, noise(seed, 0, (3, 16, 16)))])

    assert torch.equal(image(3), image(3))
    assert not torch.allclose(image(3), image(4), atol=1e-2)


def test_a_tick_leaves_its_input_untouched(make: Make, tiny_denoiser: Denoiser) -> None:
    ours = tiny_denoiser.schedule
    batch = Batch.of([SampleState(make(ours, ours.karras(T, 3)), 5, noise(5, 0, (3, 16, 16)))])
    before = batch.x.clone()
    first, second = advance(tiny_denoiser, batch), advance(tiny_denoiser, batch)
    assert torch.equal(batch.x, before)
    assert batch[0].position == 0
    assert torch.equal(first.x, second.x)


def test_levels_are_evenly_spaced_in_the_seventh_root_of_sigma(cosine: NoiseSchedule) -> None:
    levels = cosine.karras(632, 9)
    roots = cosine.sigma[list(levels[:-1])] ** (1 / 7)
    assert levels[0] == 632
    assert cosine.sigma[levels[-2]] == pytest.approx(0.06, rel=0.02)
    assert np.diff(roots) == pytest.approx([(roots[-1] - roots[0]) / 8] * 8, rel=0.05)


def test_noise_in_which_nothing_can_be_seen_is_left_in_one_step(cosine: NoiseSchedule) -> None:
    levels = cosine.karras(1000, 10)
    assert levels[0] == 1000
    assert 40 < cosine.sigma[levels[1]] < 80


def test_levels_cover_any_step_count(cosine: NoiseSchedule) -> None:
    for steps in (1, 2, 3, 61, 96, 500, 631):
        levels = cosine.karras(632, steps)
        assert (levels[0], levels[-1]) == (632, 0)
        assert len(levels) == len(set(levels)) == steps + 1
    assert cosine.karras(632, 632) == tuple(range(632, -1, -1))
    assert cosine.karras(3, 2)[0] == 3


def test_more_steps_than_levels_are_refused_with_what_is_allowed(cosine: NoiseSchedule) -> None:
    with pytest.raises(InvalidInput) as caught:
        cosine.karras(632, 633)
    assert caught.value.field == "num_inference_steps"
    assert caught.value.allowed == "1..632"
    with pytest.raises(InvalidInput):
        cosine.karras(632, 0)


def test_a_table_prints_one_line_a_call(cosine: NoiseSchedule) -> None:
    levels = cosine.karras(T, 5)
    lines = str(ddim(cosine, levels)).splitlines()
    assert len(lines) == 6
    assert lines[1].split()[:2] == [str(level) for level in levels[:2]]


@pytest.mark.parametrize("levels", [(), (5,), (5, 3), (3, 5, 0), (5, 5, 0)])
def test_levels_that_do_not_fall_to_zero_are_refused(
    make: Make, cosine: NoiseSchedule, levels: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="fall strictly"):
        make(cosine, levels)
