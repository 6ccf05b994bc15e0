"""A cascade: a finished network makes the coarse band of a picture, and a second one the detail to it.

What is hard about a face is in its coarse band, and a model of half the side has learnt it. So that model stays as it
is. The second network sees what the first one predicts, and has detail alone to learn.

Source: cascaded diffusion, Ho et al. 2021 (arXiv:2106.15282); here on bands (`ddpm_core.bands`), in every call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from ddpm_core import schedule as schedules


class CascadedUNet(nn.Module):
    """A network from noisy bands (B, C, H, W) and timesteps (B,) to the prediction for each band; same shape.

    The first quarter of the channels is the coarse band, as a model of half the side that predicts v sees it. The
    network of that model is not trained here.

    Args:
        in_channels: C, a multiple of 4.
        sample_size: H, W.
        beta_schedule, num_train_timesteps: the coarse model's noise schedule, in diffusers' words.
        unet: the other settings of diffusers' UNet2DModel, for both networks.
    """

    signal: Tensor
    noise: Tensor

    def __init__(
        self,
        in_channels: int,
        sample_size: int,
        beta_schedule: str = "squaredcos_cap_v2",
        num_train_timesteps: int = 1000,
        **unet: Any,
    ) -> None:
        super().__init__()
        of_schedule = {"beta_schedule": beta_schedule, "num_train_timesteps": num_train_timesteps}
        shape = {"in_channels": in_channels, "sample_size": sample_size}
        self.config: Mapping[str, Any] = {"_class_name": "CascadedUNet", **shape, **of_schedule, **unet}
        self._width = width = in_channels // 4
        unet["sample_size"] = sample_size
        self.coarse = UNet2DModel(in_channels=width, out_channels=width, **unet).requires_grad_(False)
        self.detail = UNet2DModel(in_channels=in_channels + width, out_channels=in_channels - width, **unet)
        alpha_bar = torch.tensor(schedules.from_diffusers(of_schedule).alpha_bar[1:])  # index is the timestep
        self.register_buffer("signal", alpha_bar.sqrt().float(), persistent=False)
        self.register_buffer("noise", (1 - alpha_bar).sqrt().float(), persistent=False)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        """Give the prediction, (B, C, H, W): v of the coarse band, then detail's."""
        noisy = x[:, : self._width]
        v = self.coarse(noisy, timestep).sample
        signal, noise = self.signal[timestep].view(-1, 1, 1, 1), self.noise[timestep].view(-1, 1, 1, 1)
        clean = (signal * noisy - noise * v).to(x.dtype)
        return torch.cat([v, self.detail(torch.cat([x, clean], 1), timestep).sample], 1)
