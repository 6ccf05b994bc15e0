"""How weights follow their gradients: AdamW, or Muon where they are matrices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_core.training.recipe import OptimizerName, Recipe

# The odd polynomial of five steps that takes every singular value of a matrix of norm 1, down to some 0.003, near 1.
_POLYNOMIAL, _STEPS = (3.4445, -4.7750, 2.0315), 5
_RMS = 0.2  # of a step at a learning rate of 1, which is AdamW's, so one rate serves both
_MOMENTUM, _EPSILON = 0.95, 1e-8


def make_optimizer(recipe: Recipe, network: nn.Module) -> torch.optim.Optimizer:
    """Make the optimizer that a recipe names for all weights of a network."""
    parameters, rate, betas = network.parameters(), recipe.learning_rate, recipe.betas
    match recipe.optimizer:
        case OptimizerName.ADAMW:
            return torch.optim.AdamW(parameters, lr=rate, betas=betas, weight_decay=recipe.weight_decay, fused=True)
        case OptimizerName.MUON:
            return Muon(parameters, lr=rate, betas=betas, weight_decay=recipe.weight_decay)


class Muon(torch.optim.Optimizer):
    """Moves matrices by their momentum with all its singular values made alike, and other weights as AdamW does.

    Kernels are matrices of one row for each channel made. `torch.optim.Muon` takes neither kernels nor vectors, and
    multiplies in bfloat16, which many CPUs only emulate.

    Args:
        parameters: all weights of a network.
        lr, weight_decay: of either kind.
        betas: AdamW's, for what is no matrix.

    Source:
        Jordan et al. 2024, kellerjordan.github.io/posts/muon; the length of a step from Liu et al. 2025
        (arXiv:2502.16982).
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        every = list(parameters)
        groups = [
            {"params": [each for each in every if each.ndim >= 2], "matrices": True},
            {"params": [each for each in every if each.ndim < 2], "matrices": False},
        ]
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Move all weights that have a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    state = self.state[weight]
                    move = (
                        _turned(weight.grad, state)
                        if group["matrices"]
                        else _scaled(weight.grad, state, group["betas"])
                    )
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(move, alpha=group["lr"])


def _turned(grad: Tensor, state: dict[str, Any]) -> Tensor:
    """Give a matrix's move at a rate of 1, and put the gradient into its state."""
    if not state:
        state["momentum"] = torch.zeros_like(grad)
    momentum: Tensor = state["momentum"].lerp_(grad, 1 - _MOMENTUM)
    matrix = torch.lerp(grad, momentum, _MOMENTUM).flatten(1)  # Nesterov's
    length: float = _RMS * max(matrix.shape) ** 0.5
    return orthogonal(matrix).view(grad.shape) * length


def _scaled(grad: Tensor, state: dict[str, Any], betas: tuple[float, float]) -> Tensor:
    """Give Adam's move at a rate of 1, and put the gradient into its state."""
    if not state:
        state.update(count=0, mean=torch.zeros_like(grad), square=torch.zeros_like(grad))
    state["count"] += 1
    mean = state["mean"].lerp_(grad, 1 - betas[0]) / (1 - betas[0] ** state["count"])
    square = state["square"].lerp_(grad.square(), 1 - betas[1]) / (1 - betas[1] ** state["count"])
    move: Tensor = mean / (square.sqrt() + _EPSILON)
    return move


def orthogonal(matrix: Tensor) -> Tensor:
    """Give a matrix (M, N), float32, with all its singular values between some 0.7 and 1.2, by Newton–Schulz steps."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if tall else matrix
    x = x / x.norm().clamp(min=1e-12)
    a, b, c = _POLYNOMIAL
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
