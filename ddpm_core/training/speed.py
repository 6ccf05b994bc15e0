"""How fast this trainer is beside a plain diffusers training loop: same network, same batch, same machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from ddpm_core.data.stream import Stream
from ddpm_core.training.description import bands_of, describe
from ddpm_core.training.networks import build
from ddpm_core.training.recipe import Recipe
from ddpm_core.training.run import accelerator_for
from ddpm_core.training.trainer import Trainer

_IMAGES = 256


@dataclass(frozen=True)
class TrainingSpeed:
    """Images a second, the best of the repeats.

    Attributes:
        ours: this trainer with the recipe as it is.
        plain: diffusers' unconditional training example: float32, its scheduler, AdamW, clipping.
    """

    ours: float
    plain: float

    @property
    def ratio(self) -> float:
        """How many times faster this trainer is."""
        return self.ours / self.plain


def compare(recipe: Recipe, repeats: int = 3) -> TrainingSpeed:
    """Time steps of both loops in turn, on random images, after one step each to warm up.

    Args:
        recipe: with a UNet2DModel.
        repeats: timed steps of each.
    """
    side = recipe.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (_IMAGES, side, side, recipe.channels), dtype=np.uint8)
    accelerator = accelerator_for(recipe)
    stream = Stream(pixels, range(_IMAGES), accelerator.device, flip=recipe.flip)
    described = describe(recipe, bands=bands_of(recipe, stream))
    ours = Trainer(recipe, described, accelerator, stream, stream, lambda path, network, progress: None).step  # noqa: ARG005
    plain = _plain_step(recipe, Stream(pixels, range(_IMAGES), accelerator.device))
    for step in (ours, plain):
        step()
    seconds: dict[Callable[[], object], list[float]] = {ours: [], plain: []}
    for _ in range(repeats):  # in turn, so that what else the machine does meets both
        for step, times in seconds.items():
            times.append(_timed(step, accelerator.device))
    return TrainingSpeed(recipe.batch / min(seconds[ours]), recipe.batch / min(seconds[plain]))


def _plain_step(recipe: Recipe, stream: Stream) -> Callable[[], object]:
    from diffusers import DDPMScheduler

    network = build(recipe).to(stream.device).train()
    scheduler = DDPMScheduler(recipe.num_levels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate)

    def step() -> None:
        clean = F.pixel_unshuffle(stream.batch(0, recipe.batch).contiguous(), recipe.patch)
        noise = torch.randn_like(clean)
        t = torch.randint(0, recipe.num_levels, (recipe.batch,), device=clean.device)
        predicted = network(scheduler.add_noise(clean, noise, t), t, return_dict=False)[0]
        torch.autograd.backward(F.mse_loss(predicted, noise))
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _timed(step: Callable[[], object], device: torch.device) -> float:
    begin = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin
