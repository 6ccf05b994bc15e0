"""What a recipe's model says of itself before it is trained: its noise schedule and its bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ddpm_core import schedule as schedules
from ddpm_core.bands import Bands, spread_of
from ddpm_core.bundle import Bundle, Manifest
from ddpm_core.data.stream import Stream
from ddpm_core.errors import InvalidInput
from ddpm_core.schedule import NoiseSchedule
from ddpm_core.training.recipe import Recipe, Schedule

_LOOKED_AT, _AT_ONCE = 4096, 256


def coarse_schedule(recipe: Recipe) -> NoiseSchedule:
    """Make the noise schedule that a recipe names: with bands it is the coarse band's."""
    match recipe.schedule:
        case Schedule.LINEAR:
            return schedules.linear(recipe.num_levels)
        case Schedule.COSINE:
            return schedules.cosine(recipe.num_levels)


def noise_schedule(recipe: Recipe) -> NoiseSchedule:
    """Make the noise schedule of a recipe's pictures."""
    return schedules.doubled(coarse_schedule(recipe)) if recipe.bands else coarse_schedule(recipe)


def bands_of(recipe: Recipe, training: Stream) -> Bands | None:
    """Measure the bands of the images that a recipe is to be trained on; None where it asks for none.

    Raises:
        InvalidInput: the images have no detail at all.
    """
    if not recipe.bands:
        return None
    chosen = training.indices[:_LOOKED_AT]
    spread = spread_of(training.images(chosen[i : i + _AT_ONCE]) for i in range(0, len(chosen), _AT_ONCE))
    if not min(spread) > 0:
        message = "bands need images with detail in every direction; these have none in one."
        raise InvalidInput("no_detail", message, field="data", given=list(spread), allowed="spreads above 0")
    return Bands(spread=spread)


def describe(recipe: Recipe, provenance: Mapping[str, Any] | None = None, bands: Bands | None = None) -> Bundle:
    """Give the bundle that a checkpoint will be, not yet on the disk.

    Args:
        recipe: the settings.
        provenance: what `bundle.json` will say of where it comes from.
        bands: of a recipe with bands.

    Raises:
        InvalidInput: a setting that no bundle can have, by name.
    """
    try:
        manifest = Manifest.model_validate(
            {
                "name": recipe.name,
                "version": "0.1",
                "domain": recipe.domain,
                "image_size": recipe.image_size,
                "channels": recipe.channels,
                "patch": recipe.patch,
                "bands": bands,
                "prediction_type": recipe.prediction,
                "averages": recipe.averages,
                "defaults": {
                    "num_inference_steps": min(recipe.num_inference_steps, recipe.num_levels),
                    "sampler": recipe.sampler,
                },
                "provenance": dict(provenance or {}),
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        raise InvalidInput("out_of_range", f"{key}: {first['msg']}", field=key, given=first["input"]) from None
    return Bundle(Path(recipe.name), manifest, noise_schedule(recipe))
