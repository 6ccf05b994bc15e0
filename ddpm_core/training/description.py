"""What a recipe's model says of itself before it is trained: its noise schedule and its bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ddpm_core import schedule as schedules
from ddpm_core.bundle import Bundle, Manifest, SamplingDefaults
from ddpm_core.errors import InvalidInput
from ddpm_core.schedule import NoiseSchedule
from ddpm_core.training.recipe import Recipe, Schedule


def noise_schedule(recipe: Recipe) -> NoiseSchedule:
    """Make the recipe's noise schedule."""
    match recipe.schedule:
        case Schedule.LINEAR:
            return schedules.linear(recipe.num_levels)
        case Schedule.COSINE:
            return schedules.cosine(recipe.num_levels)


def describe(recipe: Recipe, provenance: Mapping[str, Any] | None = None) -> Bundle:
    """Give the bundle that a checkpoint will be, not yet on the disk.

    Raises:
        InvalidInput: a setting that no bundle can have, by name.
    """
    calls = SamplingDefaults().num_inference_steps
    try:
        manifest = Manifest.model_validate(
            {
                "name": recipe.name,
                "version": "0.1",
                "domain": recipe.domain,
                "image_size": recipe.image_size,
                "channels": recipe.channels,
                "patch": recipe.patch,
                "prediction_type": recipe.prediction,
                "defaults": {"num_inference_steps": min(calls, recipe.num_levels)},
                "provenance": dict(provenance or {}),
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        raise InvalidInput("out_of_range", f"{key}: {first['msg']}", field=key, given=first["input"]) from None
    return Bundle(Path(recipe.name), manifest, noise_schedule(recipe))
