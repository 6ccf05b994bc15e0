"""How whole a face looks, in the model's own features: best of K shows those first that are not broken.

People look at faces made of one selfie and say which are broken; ridge regression finds the direction in the features
that tells one from the other. Where nobody has looked, photographs stand for the broken ones: the pull towards a
selfie leads to them and away from what a model draws well, and there faces break (docs/decisions.md).

Features: a picture and its noise are denoised once, and where the network's pictures have grown twice after they were
smallest, each channel's means over 4 × 4 cells are taken. Of a cascade the coarse network is watched, so that it
judges as the model does that it came from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm_core.bundle import Wholeness
from ddpm_core.denoiser import Denoiser, called
from ddpm_core.gate import noised

SIGMA = 0.5
"""Noise level, at a 256 px side: an eye is seen through it."""

_CELLS = 4
_RIDGE = 10.0
_GROWN = 2


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
        with _watched(getattr(denoiser.network, "coarse", denoiser.network)) as watch:
            computed(part, torch.full((len(part),), level, device=x.device))
        if watch.grown is None:
            return None
        found.append(F.adaptive_avg_pool2d(watch.grown.float(), _CELLS).flatten(1))
    return torch.cat(found)


def fit(found: Tensor, broken: Tensor, of: Tensor, source: str) -> Wholeness:
    """Find the direction from broken faces to whole ones, by ridge regression.

    What faces of one selfie have in common says nothing of which of them is broken, so each is seen beside the others
    of its own.

    Args:
        found: features (N, D) of faces.
        broken: (N,) 0..1, which are broken; the share of those who say so.
        of: (N,) integers, which selfie a face was made of.
        source: whose word it is, or what stands for it.
    """
    x, y = (_beside_its_own(values.double().cpu(), of.cpu()) for values in (found, 1 - broken.double().view(-1, 1)))
    spread = x.square().mean(0).sqrt().clamp(min=1e-6)
    x = x / spread
    within = x @ x.T / x.shape[1]  # (N, N), for there are more features than faces
    weights = x.T @ torch.linalg.solve(within + _RIDGE * torch.eye(len(x), dtype=x.dtype), y)
    return Wholeness(weights=tuple(_short(w) for w in (weights[:, 0] / spread).tolist()), images=len(x), source=source)


def score(wholeness: Wholeness, found: Tensor) -> Tensor:
    """Give (N,), higher is more like a whole face, of features (N, D)."""
    return found @ torch.tensor(wholeness.weights, dtype=found.dtype, device=found.device)


def _beside_its_own(values: Tensor, of: Tensor) -> Tensor:
    """Give values (N, D) less the mean of those of the same selfie (N,)."""
    group: Tensor = torch.unique(of, return_inverse=True)[1]
    counts = group.bincount()
    sums = values.new_zeros(len(counts), values.shape[1]).index_add_(0, group, values)
    return values - (sums / counts.view(-1, 1))[group]


class _Watch:
    """Sees the pictures (B, C, H, W) that a network's parts give, in turn, and keeps one of them.

    Attributes:
        grown: the first that is larger again, for the second time if there is one, after the last of the smallest.
    """

    def __init__(self) -> None:
        self.grown: Tensor | None = None
        self._smallest = math.inf
        self._times = 0

    def see(self, _module: nn.Module, _given: object, out: object) -> None:
        if not (isinstance(out, Tensor) and out.ndim == 4):
            return
        if out.shape[-1] <= self._smallest:
            self._smallest, self.grown, self._times = out.shape[-1], None, 0
        elif self._times < _GROWN and (self.grown is None or out.shape[-1] > self.grown.shape[-1]):
            self.grown = out
            self._times += 1


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
    return float(f"{number:.3g}")
