"""How much like what a model makes itself a picture is, in the model's own features.

The pull towards a selfie leads away from what a model draws well, and there faces break. Photographs lie farther out
than the model's own guided pictures; along the direction that tells the two apart, those of its pictures that lie
nearer to the photographs are the ones that people find broken (docs/decisions.md).

Features: a picture and its noise are denoised once, and where the network's pictures grow for the first time after
they were smallest, the standard deviation of each channel over the place is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ddpm_core.bundle import Familiar
from ddpm_core.denoiser import Denoiser, called
from ddpm_core.gate import noised

SIGMA = 2.2
"""Noise level, at a 256 px side."""

_RIDGE = 10.0


@torch.inference_mode()
def features(denoiser: Denoiser, images: Tensor, *, rows: int) -> Tensor | None:
    """Give the features (N, D) of images, on the denoiser's device; None of a network whose pictures have one size.

    Args:
        denoiser: the model; called once for every image.
        images: (N, C, H, W) in [−1, 1].
        rows: images in one network call.
    """
    x, level = noised(denoiser, images, SIGMA)
    computed = denoiser.called_by(called)  # what is replayed calls no parts
    found = []
    for part in torch.split(x, rows):
        with _watched(denoiser.network) as watch:
            computed(part, torch.full((len(part),), level, device=x.device))
        if watch.grown is None:
            return None
        found.append(watch.grown.float().flatten(2).std(2))
    return torch.cat(found)


def fit(real: Tensor, made: Tensor, source: str) -> Familiar:
    """Find the direction from photographs to what the model makes of them, by ridge regression.

    Args:
        real: features (N, D) of photographs.
        made: features (M, D) of the model's pictures, guided towards them.
        source: which photographs these are.
    """
    x = torch.cat([made, real]).double().cpu()
    y = torch.cat([torch.ones(len(made)), -torch.ones(len(real))]).double()
    mean, spread = x.mean(0), x.std(0).clamp(min=1e-6)
    x, y, dims = (x - mean) / spread, y - y.mean(), x.shape[1]
    weights = torch.linalg.solve(x.T @ x + _RIDGE * dims * torch.eye(dims, dtype=x.dtype), x.T @ y) / spread
    return Familiar(weights=tuple(_short(w) for w in weights.tolist()), images=len(made), source=source)


def score(familiar: Familiar, found: Tensor) -> Tensor:
    """Give (N,), higher is more like what the model makes, of features (N, D)."""
    return found @ torch.tensor(familiar.weights, dtype=found.dtype, device=found.device)


class _Watch:
    """Sees the pictures (B, C, H, W) that a network's parts give, in turn, and keeps one of them.

    Attributes:
        grown: the first that is larger again after the last of the smallest.
    """

    def __init__(self) -> None:
        self.grown: Tensor | None = None
        self._smallest = math.inf

    def see(self, _module: nn.Module, _given: object, out: object) -> None:
        if not (isinstance(out, Tensor) and out.ndim == 4):
            return
        if out.shape[-1] <= self._smallest:
            self._smallest, self.grown = out.shape[-1], None
        elif self.grown is None:
            self.grown = out


@contextmanager
def _watched(network: nn.Module) -> Iterator[_Watch]:
    watch = _Watch()
    hooks = [module.register_forward_hook(watch.see) for module in network.modules()]
    try:
        yield watch
    finally:
        for hook in hooks:
            hook.remove()


def _short(number: float) -> float:
    return float(f"{number:.5g}")
