"""A denoising UNet with self-attention at every scale, in plain torch.

The layout is that of a public generator of dogs, and so are the names of its parts, so that its checkpoints fit
(docs/methods.md, Training).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm_core.errors import InvalidInput

TIME_WIDTH = 256


class AttentionUNet(nn.Module):
    """A network from a noisy image (B, C, H, W) and its timestep (B,) to what it was trained to predict; same shape.

    The defaults are the dogs network: 93,417,859 parameters.

    Args:
        channels: of the image.
        widths: channels at each scale, each half the side of the one before; H and W must be multiples of
            2^(scales − 1). The last two are equal: the way up joins them.
        middle: width of the convolutions at the smallest scale.
        heads: of every attention; divides every width.

    Raises:
        InvalidInput: fewer than two widths, or the last two differ.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        middle: int = 1024,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if len(widths) < 2 or widths[-1] != widths[-2]:
            raise InvalidInput(
                "bad_network",
                f"AttentionUNet cannot have the widths {list(widths)}: it takes two or more, of which the last two are"
                " equal.",
                field="widths",
                given=list(widths),
                allowed="two or more, the last two equal",
            )
        self.config: Mapping[str, Any] = {
            "_class_name": "AttentionUNet",
            "channels": channels,
            "widths": list(widths),
            "middle": middle,
            "heads": heads,
        }
        self.scales = len(widths) - 1
        bottom = widths[-1]
        self.conv0 = DoubleConv(channels, widths[0])
        for i, (wide, wider) in enumerate(pairwise(widths), 1):
            self.add_module(f"down{i}", Down(wide, wider))
            self.add_module(f"sa{i}", SelfAttention(wider, heads))
        self.conv1 = nn.Sequential(DoubleConv(bottom, middle), DoubleConv(middle, middle), DoubleConv(middle, bottom))
        skips = list(reversed(widths[:-1]))
        for i, (skip, narrower) in enumerate(zip(skips, [*skips[1:], widths[0]], strict=True), 1):
            self.add_module(f"up{i}", Up(2 * skip, narrower))
            self.add_module(f"sa{self.scales + i}", SelfAttention(narrower, heads))
        # The original builds an attention at full size but never calls it. It is kept for its weights, and frozen so
        # that training in several processes does not wait for its gradient.
        self.get_submodule(f"sa{2 * self.scales}").requires_grad_(False)
        self.output = nn.Conv2d(widths[0], channels, 1)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        """Give the prediction, (B, C, H, W)."""
        unit = 2**self.scales
        if x.shape[-1] % unit or x.shape[-2] % unit:
            raise ValueError(f"the image's sides {tuple(x.shape[-2:])} must be multiples of {unit}")
        time = time_code(timestep).to(x.dtype)
        x = self.conv0(x)
        skips = []
        for i in range(1, self.scales + 1):
            skips.append(x)
            x = self.get_submodule(f"sa{i}")(self.get_submodule(f"down{i}")(x, time))
        x = self.conv1(x)
        for i in range(1, self.scales + 1):
            x = self.get_submodule(f"up{i}")(x, skips.pop(), time)
            if i < self.scales:
                x = self.get_submodule(f"sa{self.scales + i}")(x)
        out: Tensor = self.output(x)
        return out


class DoubleConv(nn.Module):
    """Two 3×3 convolutions with normalisation over the whole layer: in → mid → out channels."""

    def __init__(self, inside: int, outside: int, mid: int | None = None, *, residual: bool = False) -> None:
        super().__init__()
        mid = mid or outside
        self.residual = residual
        self.double_conv = nn.Sequential(
            nn.Conv2d(inside, mid, 3, padding=1, bias=False),
            nn.GroupNorm(1, mid),
            nn.GELU(),
            nn.Conv2d(mid, outside, 3, padding=1, bias=False),
            nn.GroupNorm(1, outside),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) → (B, out, H, W)."""
        y: Tensor = self.double_conv(x)
        return F.gelu(x + y) if self.residual else y


class Down(nn.Module):
    """Half the side, more channels, and the time."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(
            nn.MaxPool2d(2), DoubleConv(inside, inside, residual=True), DoubleConv(inside, outside)
        )
        self.emb_layer = nn.Sequential(nn.SiLU(), nn.Linear(TIME_WIDTH, outside))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, in, H, W) and (B, 256) → (B, out, H/2, W/2)."""
        y: Tensor = self.maxpool_conv(x) + self.emb_layer(time)[:, :, None, None]
        return y


class Up(nn.Module):
    """Twice the side, fewer channels, the skip connection, and the time."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            DoubleConv(inside, inside, residual=True), DoubleConv(inside, outside, mid=inside // 2)
        )
        self.emb_layer = nn.Sequential(nn.SiLU(), nn.Linear(TIME_WIDTH, outside))

    def forward(self, x: Tensor, skip: Tensor, time: Tensor) -> Tensor:
        """(B, in/2, H, W), (B, in/2, 2H, 2W) and (B, 256) → (B, out, 2H, 2W)."""
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        y: Tensor = self.conv(torch.cat([skip, x], dim=1)) + self.emb_layer(time)[:, :, None, None]
        return y


class SelfAttention(nn.Module):
    """Every pixel attends to every other, then a small network per pixel; both added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm([width])
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.seq = nn.Sequential(nn.LayerNorm([width]), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        pixels = x.flatten(2).transpose(1, 2)  # (B, HW, C)
        normal = self.ln(pixels)
        pixels = pixels + self.attention(normal, normal, normal, need_weights=False)[0]
        pixels = pixels + self.seq(pixels)
        out: Tensor = pixels.transpose(1, 2).reshape(x.shape)
        return out


def time_code(timestep: Tensor) -> Tensor:
    """Give the sines, then the cosines, of a timestep (B,) at 128 frequencies, 1 down to about 1/10000: (B, 256)."""
    exponent = torch.arange(0, TIME_WIDTH, 2, device=timestep.device, dtype=torch.float32) / TIME_WIDTH
    angle = timestep.float()[:, None] / 10000**exponent
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
