"""The model card of a trained bundle."""

from __future__ import annotations

from ddpm_core.bundle import Manifest


def model_card(manifest: Manifest) -> str:
    """Give the README of a bundle: what it is, what it was trained on, what it may be used for."""
    seen = manifest.provenance
    recipe = seen["recipe"]
    settings = "\n".join(f"| `{key}` | {value} |" for key, value in recipe.items())
    return f"""# {manifest.name}

{seen["terms"] or "Terms of use: those of the training data."}

A denoising diffusion model of {manifest.image_size} px images ({manifest.domain}), {manifest.prediction_type} on the
{recipe["schedule"]} schedule. The weights are the {manifest.weights} weights.

Trained on {seen["training_images"]} images of `{seen["data"]}` ({seen["held_back_images"]} held back),
{seen["images_seen"]} images seen in {seen["steps"]} steps.

| setting | value |
|---|---|
{settings}
"""
