"""The exponential moving average of a network's weights: the network that is sampled and saved."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Ema:
    """An averaged copy of a network, whose half-life is counted in images.

    Args:
        network: the network that is trained.
        half_life: images after which a weight's share has halved; 0 copies the weights.
        ramp: the half-life is at most this share of the images seen, so that the random start is forgotten
            (Karras et al. 2022).
    """

    def __init__(self, network: nn.Module, half_life: float, ramp: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.half_life, self.ramp = half_life, ramp

    @torch.no_grad()
    def update(self, network: nn.Module, batch: int, images_seen: int) -> None:
        """Move towards the network after a step of `batch` images, the `images_seen`-th included."""
        half_life = min(self.half_life, images_seen * self.ramp) if self.ramp else self.half_life
        decay = 0.5 ** (batch / half_life) if half_life else 0.0
        averaged: list[Tensor] = list(self.network.parameters())
        current: list[Tensor] = [parameter.detach() for parameter in network.parameters()]
        torch._foreach_lerp_(averaged, current, 1 - decay)
        for kept, new in zip(self.network.buffers(), network.buffers(), strict=True):
            kept.copy_(new)
