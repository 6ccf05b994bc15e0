"""Learning to make whole pictures in few calls, beside learning to denoise.

The best answer in the mean square is the mean of all pictures that may be meant: soft, and in few calls that is what
is served. So part of a batch begins with what the network itself makes of a noisy picture, as a sampler's next call
does, and a critic that is trained beside it says whether the result looks like a photograph.

Source: adversarial training of few-step samplers, Sauer et al. 2024 (arXiv:2403.12015); from their own predictions, Yin
et al. 2024 (arXiv:2405.14867); distances in a denoiser's features, Lin & Yang 2023 (arXiv:2401.00110).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm_core.sampling import Sampler
from ddpm_core.training.critic import Critic, Features, even_in_log, nearest
from ddpm_core.training.objective import Objective

_FROM = (1.0, 16.0)
"""σ₂₅₆ of the noisy pictures that the network's own predictions come from: where guided faces are made."""
_FALLS = {Sampler.LCM: (1.3, 2.5)}
_FALLS_OTHERWISE = (3.0, 8.0)
"""How many times less noise the next call has: `lcm` takes twice as many."""
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
        rollout: share of a batch that begins with the network's own predictions.
        sampler: whose next call these are for, `lcm` or an ancestral one.
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
        sampler: Sampler,
    ) -> None:
        self.objective, self.critic, self.log_sigma = objective, critic, log_sigma
        self.perceptual, self.adversarial, self.rollout = perceptual, adversarial, rollout
        self.sampler = sampler
        self._seen: tuple[Features, Features] | None = None

    def loss(self, network: nn.Module, x0: Tensor, step: int) -> Tensor:
        """Give the loss of clean images x0 (B, C, H, W) at a step of the run, and remember them for `learn`."""
        objective, critic = self.objective, self.critic
        own = round(self.rollout * len(x0))
        plain = len(x0) - own
        t = objective.timesteps(plain)
        x = objective.noised(x0[:plain], t, torch.randn_like(x0[:plain]))
        if own:
            x_own, t_own = self._own(network, x0[plain:])
            x, t = torch.cat([x, x_own]), torch.cat([t, t_own])
        out = objective.ask(network, x, t)
        made = objective.clean(out, x, t)
        through, noise = critic.timesteps(len(x0)), torch.randn_like(x0)
        # Blocks of network and critic may be the same: a grid on the picture is seen where it lies across them.
        moved = tuple(torch.randint(0, critic.block, (2,)).tolist())
        seen = critic.see(made.roll(moved, (2, 3)), through, noise)
        with torch.no_grad():
            wanted = critic.see(x0.roll(moved, (2, 3)), through, noise)
        self._seen = (seen, wanted)
        critic.heads.requires_grad_(requires_grad=False)
        believed = self.adversarial * min(1.0, step / _STEPS_TO_BELIEVE)
        loss = -believed * critic.realism(seen).mean()
        critic.heads.requires_grad_(requires_grad=True)
        if plain:
            near = critic.distance([each[:plain] for each in seen], [each[:plain] for each in wanted])
            loss = loss + objective.loss_of(out[:plain], x[:plain], x0[:plain], t[:plain]).mean()
            loss = loss + self.perceptual * near.mean()
        if own:
            loss = loss + _KEPT * (_coarse(made[plain:]) - _coarse(x0[plain:])).square().mean()
        return loss

    def learn(self) -> None:
        """Train the critic on what the last loss was made of."""
        if self._seen is not None:
            self.critic.learn(*self._seen)
            self._seen = None

    def _own(self, network: nn.Module, x0: Tensor) -> tuple[Tensor, Tensor]:
        """Give what the sampler's next call would see of x0 (B, C, H, W), and its timesteps (B,)."""
        objective = self.objective
        before = even_in_log(len(x0), *_FROM, x0.device)
        after = before - even_in_log(len(x0), *_FALLS.get(self.sampler, _FALLS_OTHERWISE), x0.device)
        t, t_next = nearest(self.log_sigma, before), nearest(self.log_sigma, after)
        with torch.no_grad():
            x = objective.noised(x0, t, torch.randn_like(x0))
            r = objective.clean(objective.ask(network, x, t), x, t).clamp(-1, 1)
            sigma, sigma_next = objective.sigma(t), objective.sigma(t_next)
            kept = (sigma_next / sigma).square() * (self.sampler is not Sampler.LCM)  # of the noise before
            unit = (1 + sigma.square()).sqrt()  # 1/√ᾱ
            mean = r + kept * (x * unit - r)
            noisy = mean + sigma_next * (1 - kept).sqrt() * torch.randn_like(x0)
            return noisy / (1 + sigma_next.square()).sqrt(), t_next


def _coarse(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(images, _CELLS)
