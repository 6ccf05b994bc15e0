"""The networks that can be trained, by the name of their class."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from ddpm_core.bundle import build_network
from ddpm_core.errors import InvalidInput
from ddpm_core.training.description import coarse_schedule
from ddpm_core.training.recipe import Recipe, unknown

NETWORKS = ("AttentionUNet", "CascadedUNet", "UNet2DModel")


def build(recipe: Recipe) -> nn.Module:
    """Make the recipe's network with fresh weights, for images of the recipe's size, channels, patch and bands.

    Raises:
        InvalidInput: an unknown class or setting, with the nearest known one.
    """
    settings = dict(recipe.network)
    name = settings.pop("class")
    smaller = recipe.patch * 2**recipe.bands
    channels, side = recipe.channels * smaller**2, recipe.image_size // smaller
    shape: dict[str, Any]
    match name:
        case "UNet2DModel":
            from diffusers import UNet2DModel as Network

            shape = {"in_channels": channels, "out_channels": channels, "sample_size": side}
        case "AttentionUNet":
            from ddpm_core.unet import AttentionUNet as Network

            shape = {"channels": channels}
        case "CascadedUNet":
            from diffusers import UNet2DModel as Network

            if not recipe.bands:
                message = "network.class = CascadedUNet makes the coarse band and detail; it needs bands: 1."
                raise InvalidInput("out_of_range", message, field="bands", given=recipe.bands, allowed="1")
            of_schedule = coarse_schedule(recipe).config
            shape = {key: of_schedule[key] for key in ("beta_schedule", "num_train_timesteps")}
            shape |= {"in_channels": channels, "sample_size": side}
        case _:
            raise unknown("network class", name, NETWORKS)
    allowed = [key for key in inspect.signature(Network.__init__).parameters if key not in ("self", *shape)]
    for key in settings:
        if key not in allowed:
            raise unknown(f"setting of {name} called", key, allowed)
    return build_network({"_class_name": name, **settings, **shape})
