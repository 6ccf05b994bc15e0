"""How fast a plan runs, beside the program this product descends from, on the same machine and network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddpm_core import schedule
from ddpm_core.bundle import Bundle, Manifest
from ddpm_core.denoiser import Denoiser, Prediction, fastest_dtype, make_ready
from ddpm_core.domain import Domain
from ddpm_core.plan import make_plan
from ddpm_core.sampling import Batch, advance
from ddpm_core.timing import in_turn

IMAGES = 5


@dataclass(frozen=True)
class Solo:
    """Seconds on one machine, for five faces of 256 px from a 113.7M-parameter network.

    Attributes:
        origin_step: one step of the origin program: float32, batch 5, gradient of its loss.
        origin_steps: its number of steps.
        our_tick: one tick of five guided images at the precision chosen by measuring.
        our_calls: ticks of the `likeness` plan.
        unguided_tick: the same tick without guidance.
        plain_call: one image, one call, float32 in the default memory layout.
        fast_call: one image, one call, as we run it.
        dtype: the precision chosen.
    """

    origin_step: float
    origin_steps: int
    our_tick: float
    our_calls: int
    unguided_tick: float
    plain_call: float
    fast_call: float
    dtype: str


def celebahq_unet() -> nn.Module:
    """Make the network of `google/ddpm-celebahq-256` with random weights: 113,673,219 parameters."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    network: nn.Module = UNet2DModel(
        sample_size=256,
        block_out_channels=(128, 128, 256, 256, 512, 512),
        down_block_types=("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4,
        attention_head_dim=None,
        layers_per_block=2,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
    )
    return network


def solo(report: Callable[[str], object], *, steps: int = 2) -> Solo:
    """Measure; `steps` steps of each loop are timed after one to warm up. Takes two to three minutes on two cores."""
    network = celebahq_unet().eval().requires_grad_(False)
    target = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)

    report("one call in float32, default layout")
    one = (torch.randn(1, 3, 256, 256), torch.tensor([500]))
    with torch.inference_mode():
        (plain,) = in_turn([lambda: network(*one)], 2 * steps)
    report("the origin program: DDIM, float32, batch 5")
    (origin,) = in_turn([_origin_step(network, target)], steps)
    report("choosing the precision")
    cpu = torch.device("cpu")
    dtype = fastest_dtype(network, one[0], cpu)
    manifest = Manifest(
        name="celebahq", version="1", domain=Domain.HUMAN_FACE, image_size=256, prediction_type=Prediction.EPSILON
    )
    bundle = Bundle(Path("celebahq"), manifest, schedule.linear())
    denoiser = bundle.denoiser(make_ready(copy.deepcopy(network), cpu, dtype), cpu, dtype)
    report(f"one call in {dtype}, channels last")
    with torch.inference_mode():
        (fast,) = in_turn([lambda: denoiser(*one)], 4 * steps)
    report("guided and unguided ticks of five images, in turn")
    guided = make_plan(bundle, target, num_images=IMAGES, mode="likeness", seed=0)
    unguided = make_plan(bundle, num_images=IMAGES, seed=0)
    ticks = [_tick(denoiser, plan.start()) for plan in (guided, unguided)]
    times = in_turn(ticks, 3 * steps)
    return Solo(
        origin_step=median(origin),
        origin_steps=40,
        our_tick=median(times[0]),
        our_calls=guided.calls,
        unguided_tick=median(times[1]),
        plain_call=median(plain),
        fast_call=median(fast),
        dtype=str(dtype).removeprefix("torch."),
    )


def _tick(denoiser: Denoiser, states: Sequence[Any]) -> Callable[[], object]:
    # One image a call: on a CPU the engine finds that best for a network of this size.
    alone = [Batch.of([state], denoiser.device) for state in states]
    return lambda: [advance(denoiser, batch) for batch in alone]


def _origin_step(network: nn.Module, target: np.ndarray) -> Callable[[], object]:
    """Give one step of the Hugging Face course's guided DDIM loop on five images."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(num_train_timesteps=1000)
    scheduler.set_timesteps(40)
    t = scheduler.timesteps[20]
    y = torch.from_numpy(target).permute(2, 0, 1).float()[None] / 127.5 - 1

    def step() -> Tensor:
        with torch.inference_mode(False):
            x = torch.randn(IMAGES, 3, 256, 256)
            with torch.no_grad():
                noise = network(x, t).sample
            x = x.requires_grad_()
            x0 = scheduler.step(noise, t, x).pred_original_sample
            loss = (x0 - y).abs().mean() * 50.0
            x = x.detach() - torch.autograd.grad(loss, x)[0]
            moved: Tensor = scheduler.step(noise, t, x).prev_sample
            return moved

    return step
