"""Learning to answer, where there is no noise in a picture, with the mean of a teacher's answers over noise.

`lcm` makes its calls of little noise in pairs and takes the mean of both, so that what noise alone would make of a face
cancels out. That mean is a function of the picture before the noise, so a network that is shown the picture itself can
learn it, and what its guide adds as well: one call is then worth two pairs.

A picture goes through the calls of a guided `lcm`, as the teacher makes them, and every call is one question: the first
ones and the last with noise, which the student shall answer as the teacher does, those between without.

Source: progressive distillation's idea of one call for two (Salimans & Ho 2022), with Meng et al. 2023 for the guide.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ddpm_core.guidance import low_pass_displacement
from ddpm_core.training.critic import even_in_log, nearest
from ddpm_core.training.objective import Objective
from ddpm_core.training.teacher import Teacher

_FIRST = (4.0, 14.0)
_MEANS = ((3.0, 5.2), (1.8, 3.2), (1.05, 2.0), (0.6, 1.15))
_LAST = (0.4, 1.5)
"""σ₂₅₆ of the calls, each evenly in its logarithm."""
_PULL = (0.5, 6.0)
"""σ₂₅₆ between which the pull towards the picture grows from nothing to all of it."""
_GRIDS = (16, 20, 24)
_PULLED = 0.75
"""Share of the pictures that are pulled; the others are made as from noise alone."""

Question = tuple[Tensor, Tensor, Tensor]
"""What a network is shown (B, C, H, W), timesteps (B,), and the clean images (B, C, H, W) that it shall answer."""


class Averages:
    """The loss of a batch of pictures that go through the calls of `lcm`.

    Args:
        objective: how an answer is judged, and which timesteps are drawn for calls that stand by themselves.
        teacher: whose means are learnt.
        log_sigma: (T,) ln σ₂₅₆ of the timesteps.
    """

    def __init__(self, objective: Objective, teacher: Teacher, log_sigma: Tensor) -> None:
        self.objective, self.teacher, self.log_sigma = objective, teacher, log_sigma

    def loss(self, network: nn.Module, x0: Tensor) -> Tensor:
        """Give the loss of what clean images x0 (B, C, H, W) make a network be asked."""
        x, t, answer = (torch.cat(part) for part in zip(*self.questions(x0), strict=True))
        objective = self.objective
        return objective.loss_of(objective.ask(network, x, t), x, answer, t).mean()

    @torch.no_grad()
    def questions(self, x0: Tensor) -> list[Question]:
        """Give the questions of clean images x0 (B, C, H, W), those of the same kind together."""
        objective, teacher, count = self.objective, self.teacher, len(x0)
        pulled = (torch.rand(count, device=x0.device) < _PULLED) * (0.8 + 0.2 * torch.rand(count, device=x0.device))
        grids = [_GRIDS[int(which)] for which in torch.randint(0, len(_GRIDS), (count,))]

        def drawn(low: float, high: float) -> Tensor:
            return nearest(self.log_sigma, even_in_log(count, low, high, x0.device))

        def noised(images: Tensor, t: Tensor) -> Tensor:
            return objective.noised(images, t, torch.randn_like(images))

        def pull(images: Tensor, t: Tensor) -> Tensor:
            low, high = (math.log(sigma) for sigma in _PULL)
            weight = pulled * ((self.log_sigma[t] - low) / (high - low)).clamp(0, 1).float()
            return images + low_pass_displacement(images, x0, weight, grids, torch.ones_like(weight))

        t = objective.timesteps(count)
        x = noised(x0, t)
        asked: list[Question] = [(x, t, teacher.unguided(x, t))]
        t = drawn(*_FIRST)
        x = noised(x0, t)
        first = teacher.unguided(x, t)
        asked.append((x, t, first))
        made = pull(teacher.pushed(x, t, first).clamp(-1, 1), t)
        for low, high in _MEANS:
            t, noise = drawn(low, high), torch.randn_like(x0)
            pair = torch.cat([objective.noised(made, t, noise), objective.noised(made, t, -noise)])
            mean = teacher(pair, torch.cat([t, t])).view(2, *x0.shape).mean(0)
            asked.append((objective.noised(made, t, torch.zeros_like(made)), t, mean))
            made = pull(mean.clamp(-1, 1), t)
        t = drawn(*_LAST)
        x = noised(made, t)
        asked.append((x, t, teacher.unguided(x, t)))
        return asked
