"""A critic: what a finished network sees in a picture, and whether photographs look like that.

A denoiser's features say what matters in a picture of its kind: to what is learnt in them a smeared eye is far from an
eye, while in pixels it is near. The critic's network is left as it is; only small heads on its features are trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm_core.bundle import Bundle, read_bundle
from ddpm_core.domain import Domain
from ddpm_core.errors import InvalidInput
from ddpm_core.training.objective import Objective, emphasis

Features = Sequence[Tensor]
"""Of pictures: one (B, C, H, W) for each scale of the network's way down, and the one in its middle."""

_SIGMA, _SIGMA_WITH_BANDS = (0.2, 4.0), (0.06, 2.0)
"""σ₂₅₆ of the noise that pictures are seen through: pores drown in it, eyes do not. With bands hair must not either."""
_WIDTH, _GROUPS = 64, 4
_EMPHASIS = 3.0
_RATE, _BETAS = 1e-3, (0.5, 0.99)


class Critic(nn.Module):
    """Features of pictures, the distance between them, and heads that tell photographs from what a network made.

    Source: features as in Lin & Yang 2023 (arXiv:2401.00110); heads on them as in Sauer et al. 2024 (arXiv:2403.12015).

    Attributes:
        block: side of what its network sees as one place, in pixels.

    Args:
        bundle: the finished model; its own noise schedule, blocks and bands are used.
        device: where the pictures are.
        compiled: translate its network for this machine at the first look.

    Raises:
        InvalidInput: a network of another class than UNet2DModel.
    """

    def __init__(self, bundle: Bundle, device: torch.device, *, compiled: bool = False) -> None:
        super().__init__()
        network = bundle.load_network()
        if not isinstance(network, UNet2DModel):
            message = f"critic = {bundle.path} is of class {type(network).__name__}; only a UNet2DModel can be one."
            raise InvalidInput("other_model", message, field="critic", given=str(bundle.path), allowed="UNet2DModel")
        manifest = bundle.manifest
        walk = partial(_features, network)
        self._walk: Callable[[Tensor, Tensor], Features] = torch.compile(walk) if compiled else walk
        self.network = network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
        asked = Objective(bundle.schedule, manifest.prediction_type, patch=manifest.patch, bands=manifest.bands)
        self.asked = asked.to(device)
        self._through = _SIGMA if manifest.bands is None else _SIGMA_WITH_BANDS
        self.block = manifest.image_size // bundle.network_shape[1]
        sigma = bundle.schedule.sigma_256(manifest.image_size)[1:]
        self.log_sigma = torch.from_numpy(np.log(sigma)).to(device)
        widths: list[int] = [*network.config["block_out_channels"]]
        self.heads = nn.ModuleList(_head(width) for width in (*widths, widths[-1])).to(device)
        sides = [bundle.network_shape[1] // 2**i for i in range(len(widths))]
        stressed = _EMPHASIS if manifest.domain is Domain.HUMAN_FACE else 1.0
        self.weights = [emphasis(side, stressed).to(device) for side in (*sides, sides[-1])]
        self.optimizer = torch.optim.Adam(self.heads.parameters(), lr=_RATE, betas=_BETAS)

    def timesteps(self, count: int) -> Tensor:
        """Draw timesteps to look through, (B,) int64, evenly in ln σ, from torch's global generator."""
        return nearest(self.log_sigma, even_in_log(count, *self._through, self.log_sigma.device))

    def see(self, images: Tensor, t: Tensor, noise: Tensor) -> Features:
        """Give the features of clean images (B, C, H, W) through noise at timesteps t (B,)."""
        seen = self._walk(self.asked.shown(self.asked.noised(images, t, noise), t), t)
        return [each.float() for each in seen]  # autocast may give 16 bits, and the heads learn outside of it

    def distance(self, seen: Features, wanted: Features) -> Tensor:
        """Give how far features are from others, (B,): the mean square between them, each place made of one length."""
        parts = [
            ((_even(a) - _even(b)).square().mean(1) * weight).mean((1, 2))
            for a, b, weight in zip(seen, wanted, self.weights, strict=True)
        ]
        return torch.stack(parts).sum(0)

    def realism(self, seen: Features) -> Tensor:
        """Give how much like photographs pictures look, (B,); 1 a scale and above is sure."""
        parts = [
            (head(features)[:, 0] * weight).mean((1, 2))
            for head, features, weight in zip(self.heads, seen, self.weights, strict=True)
        ]
        return torch.stack(parts).sum(0)

    def learn(self, made: Features, real: Features) -> Tensor:
        """Train the heads by one step to tell what was made from photographs; give the hinge loss."""
        parts = [
            F.relu(1 + head(fake.detach())).mean() + F.relu(1 - head(true)).mean()
            for head, fake, true in zip(self.heads, made, real, strict=True)
        ]
        loss = torch.stack(parts).mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def state(self) -> dict[str, Any]:
        """Give what training has made of it, for `load`."""
        return {"heads": self.heads.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` gave."""
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])


def _features(network: UNet2DModel, x: Tensor, t: Tensor) -> Features:
    """Go a network's way down and through its middle."""
    embedding = network.time_embedding(network.time_proj(t).to(x.dtype))
    h: Tensor = network.conv_in(x)
    seen = []
    for block in network.down_blocks:
        h, before = block(hidden_states=h, temb=embedding)
        seen.append(before[0])
    return [*seen, network.mid_block(h, embedding)]


def _head(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.GroupNorm(1, width, affine=False),
        nn.Conv2d(width, _WIDTH, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
        nn.GroupNorm(_GROUPS, _WIDTH),
        nn.LeakyReLU(0.2),
        nn.Conv2d(_WIDTH, 1, 1),
    )


def _even(features: Tensor) -> Tensor:
    return features * (features.square().mean(1, keepdim=True) + 0.01).rsqrt()


def even_in_log(count: int, low: float, high: float, device: torch.device) -> Tensor:
    """Draw (B,) logarithms of σ, one in each equal part of low..high, in a random order."""
    places = (torch.randperm(count, device=device) + torch.rand(count, device=device)) / count
    return math.log(low) + math.log(high / low) * places


def nearest(log_sigma: Tensor, wanted: Tensor) -> Tensor:
    """Give the timesteps (B,) int64 whose ln σ, rising in `log_sigma` (T,), first reaches what is wanted (B,)."""
    return torch.searchsorted(log_sigma, wanted.to(log_sigma.dtype)).clamp_(max=len(log_sigma) - 1)


def load_critic(path: Path, student: Bundle, device: torch.device, *, compiled: bool = False) -> Critic:
    """Read a critic for a model in training.

    Raises:
        InvalidInput: it makes other pictures, or cannot be a critic.
    """
    bundle = read_bundle(path)
    if bundle.shape != student.shape:
        ours, theirs = ("{} × {} × {}".format(*each.shape) for each in (student, bundle))
        message = f"critic = {path} makes pictures of {theirs}; it takes {ours}."
        raise InvalidInput("other_model", message, field="critic", given=str(path), allowed=ours)
    return Critic(bundle, device, compiled=compiled)
