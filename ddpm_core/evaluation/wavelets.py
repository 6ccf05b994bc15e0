"""Image features that need no download: statistics of oriented wavelets, in place of the Inception network.

The first two orders of a scattering transform (Bruna & Mallat, 2013), computed on a pyramid: where the light and the
colour of a picture lie, how strong its edges are by size, direction and place, and which edges go together. Nothing
in them is learned or random, so they are the same on every machine and judge no model by its own network.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

NAME = "wavelet_statistics"
VERSION = 1

_DIRECTIONS = 4
_WIDTH = 7
_PLACES = 4
"""Edges are told apart on a grid of so many cells a side; light on twice as many."""
_SMALLEST = 8
"""The coarsest picture of the pyramid has at least so many pixels a side."""
_FLOOR = 0.01  # about one grey level: below it an edge is none, so that logarithms stay finite
_TO_YCBCR = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


def wavelet_statistics(pixels: Tensor) -> Tensor:
    """Give the features of pictures.

    Args:
        pixels: (B, H, W, 3) uint8, square, on any device.

    Returns:
        (B, D) float32; D depends on the side alone and is 480 at 64 px.
    """
    x = torch.einsum("bhwc,yc->byhw", pixels.float() / 127.5 - 1, _TO_YCBCR.to(pixels.device))
    light, colour = x[:, :1], x[:, 1:]
    features = [_pool(light, 2 * _PLACES), _pool(colour, _PLACES)]
    deeper = torch.empty(len(x), 0, *x.shape[2:], device=x.device)  # edges of the finer scales, (B, 4·scales, H, W)
    for _ in range(max(1, int(math.log2(x.shape[-1] / _SMALLEST)) + 1)):
        edges = _edges(light)  # (B, 4, H, W)
        tints = _edges(colour).view(len(x), 2, _DIRECTIONS, *colour.shape[2:]).sum(2)  # (B, 2, H, W)
        features += [_log(_pool(edges, _PLACES)), _log(_pool(tints, _PLACES // 2)), _log(_pool(_edges(deeper), 1))]
        light, colour, deeper = _half(light), _half(colour), _half(torch.cat([deeper, edges], 1))
    return torch.cat(features, 1)


def _edges(x: Tensor) -> Tensor:
    """Strength of the edges of each channel in four directions: (B, C, H, W) → (B, 4C, H, W)."""
    b, c, h, w = x.shape
    if c == 0:
        return x
    real, imaginary = (bank.to(x.device) for bank in _FILTERS)
    flat = F.pad(x.reshape(b * c, 1, h, w), [_WIDTH // 2] * 4, mode="replicate")
    power = F.conv2d(flat, real).square() + F.conv2d(flat, imaginary).square()
    return power.sqrt().view(b, c * _DIRECTIONS, h, w)


def _filters() -> tuple[Tensor, Tensor]:
    """Morlet wavelets of a wavelength of 8/3 pixels: real and imaginary part, each (4, 1, 7, 7), both of mean 0."""
    at = torch.arange(_WIDTH) - _WIDTH // 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    window = torch.exp(-(x**2 + y**2) / (2 * 1.2**2))
    window = window / window.sum()
    angles = torch.arange(_DIRECTIONS) * (math.pi / _DIRECTIONS)
    phase = 0.75 * math.pi * (x * angles.cos().view(-1, 1, 1) + y * angles.sin().view(-1, 1, 1))
    real = window * phase.cos()
    real = real - window * real.sum((1, 2), keepdim=True)
    return real[:, None], (window * phase.sin())[:, None]


_FILTERS = _filters()


def _half(x: Tensor) -> Tensor:
    """Halve the sides after a binomial blur."""
    b, c, h, w = x.shape
    if c == 0:
        return x
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=x.device) / 16
    flat = F.pad(x.reshape(b * c, 1, h, w), [2] * 4, mode="replicate")
    small = F.conv2d(flat, torch.outer(row, row)[None, None], stride=2)
    return small.view(b, c, *small.shape[2:])


def _pool(x: Tensor, cells: int) -> Tensor:
    return F.adaptive_avg_pool2d(x, cells).flatten(1) if x.shape[1] else x.flatten(1)


def _log(x: Tensor) -> Tensor:
    return torch.log(x + _FLOOR)
