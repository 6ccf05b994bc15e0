"""Learning to make whole pictures in few calls, beside learning to denoise.

The best answer in the mean square is the mean of all pictures that may be meant: soft, and in few calls that is what
is served. So part of a batch is of the network's own making, under way from call to call (`rollout.py`), and a critic
that is trained beside it says whether what is made of it looks like a photograph.

Source: adversarial training of few-step samplers, Sauer et al. 2024 (arXiv:2403.12015); distances in a denoiser's
features, Lin & Yang 2023 (arXiv:2401.00110).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm_core.training.critic import Critic, Features
from ddpm_core.training.objective import Objective
from ddpm_core.training.rollout import Rollout

_IN_SIGHT = 16.0
"""σ₂₅₆ at which the critic's word has half of its weight: in more noise whole pictures cannot be asked for yet."""
_CELLS = 8
_KEPT = 0.5
"""What the coarse structure weighs, 8 cells a side, of which the next call must not forget."""
_STEPS_TO_BELIEVE = 40
"""Steps until the critic, which knows nothing at first, has its full weight."""


class Realism:
    """The loss of a batch: the objective's, the distance in features, and what the critic says.

    Args:
        objective: how denoising is judged.
        critic: of pictures.
        log_sigma: (T,) ln σ₂₅₆ of the timesteps.
        perceptual: weight of the distance in features.
        adversarial: weight of the critic's word.
        rollout: share of a batch that is of the network's own making.
        mirror: whether its late noise is the same on both sides, as that of faces is when they are sampled.
    """

    def __init__(
        self,
        objective: Objective,
        critic: Critic,
        log_sigma: Tensor,
        *,
        perceptual: float,
        adversarial: float,
        rollout: float,
        mirror: bool,
    ) -> None:
        self.objective, self.critic, self.log_sigma = objective, critic, log_sigma
        self.perceptual, self.adversarial, self.rollout = perceptual, adversarial, rollout
        self.under_way = Rollout(objective, log_sigma, mirror=mirror)
        self._seen: tuple[Features, Features] | None = None

    def loss(self, network: nn.Module, x0: Tensor, step: int) -> Tensor:
        """Give the loss of clean images x0 (B, C, H, W) at a step of the run, and remember them for `learn`."""
        objective, critic = self.objective, self.critic
        plain = len(x0) - round(self.rollout * len(x0))
        t = objective.timesteps(plain)
        x = objective.noised(x0[:plain], t, torch.randn_like(x0[:plain]))
        if plain < len(x0):
            own = self.under_way.now(x0[plain:])
            x, t, x0 = torch.cat([x, own.x]), torch.cat([t, own.t]), torch.cat([x0[:plain], own.x0])
        out = objective.ask(network, x, t)
        made = objective.clean(out, x, t)
        through, noise = critic.timesteps(len(x0)), torch.randn_like(x0)
        seen = critic.see(made, through, noise)
        with torch.no_grad():
            wanted = critic.see(x0, through, noise)
        self._seen = (seen, wanted)
        critic.heads.requires_grad_(requires_grad=False)
        believed = self.adversarial * min(1.0, step / _STEPS_TO_BELIEVE)
        loss = -believed * (self._in_sight(t) * critic.realism(seen)).mean()
        critic.heads.requires_grad_(requires_grad=True)
        if plain:
            near = critic.distance([each[:plain] for each in seen], [each[:plain] for each in wanted])
            loss = loss + objective.loss_of(out[:plain], x[:plain], x0[:plain], t[:plain]).mean()
            loss = loss + self.perceptual * near.mean()
        if plain < len(x0):
            loss = loss + _KEPT * (_coarse(made[plain:]) - _coarse(x0[plain:])).square().mean()
            self.under_way.go_on(made[plain:].detach())
        return loss

    def learn(self) -> None:
        """Train the critic on what the last loss was made of."""
        if self._seen is not None:
            self.critic.learn(*self._seen)
            self._seen = None

    def state(self) -> dict[str, Any]:
        """Give what a resumed run needs, for `load`."""
        return {**self.critic.state(), "under_way": self.under_way.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` gave."""
        self.critic.load(state)
        self.under_way.load(state.get("under_way", {}))

    def _in_sight(self, t: Tensor) -> Tensor:
        """Give how far a picture can be known at timesteps t (B,), 1 to 0."""
        return torch.sigmoid(2 * (math.log(_IN_SIGHT) - self.log_sigma[t])).float()


def _coarse(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(images, _CELLS)
