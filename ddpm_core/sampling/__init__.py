"""Samplers as tables, images under way as states, and the tick that advances them."""

from ddpm_core.sampling.noise import MAX_SEED, noise, noise_key, noises
from ddpm_core.sampling.state import Batch, SampleState
from ddpm_core.sampling.table import Sampler, StepTable, build, ddim, ddim_raw, ddpm, dpmpp_2m, lcm
from ddpm_core.sampling.through import advance_through_network
from ddpm_core.sampling.tick import advance, sample

__all__ = [
    "MAX_SEED",
    "Batch",
    "SampleState",
    "Sampler",
    "StepTable",
    "advance",
    "advance_through_network",
    "build",
    "ddim",
    "ddim_raw",
    "ddpm",
    "dpmpp_2m",
    "lcm",
    "noise",
    "noise_key",
    "noises",
    "sample",
]
