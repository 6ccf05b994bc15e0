"""Bands: a picture as a coarse one of half the side, and its detail, each predicted at its own spread.

In the orthonormal Haar basis of 2 × 2 blocks noise stays white, with one σ in every band, while a picture's detail is
a tenth of its coarse part. So each band has the preconditioning of Karras et al. 2022 (appendix B.6) at its own
spread s, and at q·s, what a band's smooth places have:

    seen = clean + σ·noise,   the network sees c_in·seen,   clean = c_skip·seen + c_out·F
    c_in = 1/√(σ² + s²),   c_skip = (q·s)²/(σ² + (q·s)²),   c_out = √((1 − c_skip)²·s² + (c_skip·σ)²)

Detail lies on edges: in most places it is far less than s, and what is seen there is noise. With q = 1 so much of that
is kept that a network which has not yet learnt to take it out draws a dither of spread s all over. With q = 1/4 such a
network draws smooth pictures.

The coarse band is twice a picture of half the side, of half the σ; it has s = 1, q = 1, hence c_out = σ·s·c_in, and the
other sign of F, which is v-prediction (Salimans & Ho 2022). So a model of half the side is a model of its coarse band.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

Spread = Annotated[float, Field(gt=0)]
_HALVED = (0.5, 1.0, 1.0, 1.0)
"""A coarse band in Haar's basis is twice a picture."""
_SMOOTH = (1.0, 0.25, 0.25, 0.25)
"""q: of photographs of faces at 128 px a quarter of the detail is within what noise of 0.23 s would have there."""


def haar(x: Tensor) -> Tensor:
    """Give (B, 4C, H/2, W/2) from (B, C, H, W): the coarse band, then horizontal, vertical and diagonal detail."""
    a, b, c, d = x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]
    return torch.cat([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], 1) / 2


def unhaar(bands: Tensor) -> Tensor:
    """Give (B, C, H, W) from what `haar` gives."""
    coarse, horizontal, vertical, diagonal = bands.chunk(4, 1)
    batch, channels, height, width = coarse.shape
    x = coarse.new_empty(batch, channels, 2 * height, 2 * width)
    x[..., ::2, ::2] = coarse + horizontal + vertical + diagonal
    x[..., ::2, 1::2] = coarse - horizontal + vertical - diagonal
    x[..., 1::2, ::2] = coarse + horizontal - vertical - diagonal
    x[..., 1::2, 1::2] = coarse - horizontal - vertical + diagonal
    return x / 2


@dataclass(frozen=True, eq=False)
class Asked:
    """What a network is asked about noisy pictures, all (B, 4C, H/2, W/2): the coarse band first.

    Attributes:
        input: what it sees.
        kept: c_skip·seen.
        gain: c_out, with its sign.
    """

    input: Tensor
    kept: Tensor
    gain: Tensor

    def clean(self, out: Tensor) -> Tensor:
        """Give the clean bands that the network's output means."""
        return self.kept + self.gain * out

    def target(self, clean: Tensor) -> Tensor:
        """Give the output that means these clean bands."""
        return (clean - self.kept) / self.gain


class Bands(BaseModel):
    """The bands of a model's pictures.

    Attributes:
        levels: how often the side is halved; 1.
        spread: standard deviation of horizontal, vertical and diagonal detail, of pictures in [−1, 1].
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    levels: Literal[1] = 1
    spread: tuple[Spread, Spread, Spread]

    def split(self, images: Tensor) -> Tensor:
        """Give clean bands (B, 4C, H/2, W/2) from pictures (B, C, H, W); the coarse one is a picture again."""
        return haar(images) * _each(_HALVED, images.shape[1], images)

    def join(self, bands: Tensor) -> Tensor:
        """Give pictures (B, C, H, W) from what `split` gives."""
        return unhaar(bands / _each(_HALVED, bands.shape[1] // 4, bands))

    def coarse(self, x: Tensor, alpha_bar: Tensor) -> Tensor:
        """Give the coarse band of noisy pictures as a model of half the side sees it, (B, C, H/2, W/2)."""
        return self.ask(x, alpha_bar).input[:, : x.shape[1]]

    def with_coarse(self, images: Tensor, coarse: Tensor) -> Tensor:
        """Give pictures (B, C, H, W) whose coarse band is replaced by pictures (B, C, H/2, W/2)."""
        return self.join(torch.cat([coarse, self.split(images)[:, images.shape[1] :]], 1))

    def ask(self, x: Tensor, alpha_bar: Tensor) -> Asked:
        """Ask about noisy pictures x (B, C, H, W) with shares of signal ᾱ, (B, 1, 1, 1) float64."""
        channels = x.shape[1]
        scale = _each(_HALVED, channels, alpha_bar)
        s = _each((1.0, *self.spread), channels, alpha_bar)
        sign = _each((-1.0, 1.0, 1.0, 1.0), channels, alpha_bar)
        sigma = ((1 - alpha_bar) / alpha_bar).sqrt() * scale  # (B, 4C, 1, 1), as c_in is
        c_in = (sigma.square() + s.square()).rsqrt()
        smooth = (s * _each(_SMOOTH, channels, alpha_bar)).square()
        c_skip = smooth / (sigma.square() + smooth)
        c_out = (((1 - c_skip) * s).square() + (c_skip * sigma).square()).sqrt()
        bands, unit = haar(x), scale / alpha_bar.sqrt()
        return Asked(
            input=bands * (c_in * unit).to(x.dtype),
            kept=bands * (c_skip * unit).to(x.dtype),
            gain=(sign * c_out).to(x.dtype),
        )


def _each(values: tuple[float, float, float, float], channels: int, like: Tensor) -> Tensor:
    """Give (1, 4C, 1, 1): the number of its band for every channel."""
    return _resident(values, channels, like.dtype, like.device)


@lru_cache(maxsize=64)
def _resident(
    values: tuple[float, float, float, float], channels: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):  # training may ask for the same numbers
        return torch.tensor(values, dtype=dtype).repeat_interleave(channels).view(1, -1, 1, 1).to(device)


def spread_of(batches: Iterable[Tensor]) -> tuple[float, float, float]:
    """Give the standard deviations of horizontal, vertical and diagonal detail of pictures, batches of (B, C, H, W)."""
    total, count = torch.zeros(3, dtype=torch.float64), 0
    for images in batches:
        detail = haar(images).chunk(4, 1)[1:]
        total += torch.tensor([float(band.double().square().sum()) for band in detail], dtype=torch.float64)
        count += detail[0].numel()
    horizontal, vertical, diagonal = (total / max(count, 1)).sqrt().tolist()
    return horizontal, vertical, diagonal
