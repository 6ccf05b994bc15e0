"""The model card of a trained bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddpm_core.bundle import Manifest


def model_card(manifest: Manifest, grid: str | None = None) -> str:
    """Give the README of a bundle: what it is, what it was trained on, what it may be used for.

    Args:
        manifest: of a bundle that was trained here.
        grid: file of a sample grid beside the card, or None.
    """
    seen = manifest.provenance
    recipe = seen["recipe"]
    settings = "\n".join(f"| `{key}` | {value} |" for key, value in recipe.items())
    begun = f", begun with the weights of {seen['init']}" if "init" in seen else ""
    taught = _taught(seen)
    push = manifest.guide
    guided = (
        f" A worse network of the same kind guides it: w = {push.weight:g} for σ of {push.interval[0]:g} to "
        f"{push.interval[1]:g} at a 256 px side (autoguidance)."
        if push
        else ""
    )
    banded = (
        " It works on bands (`bands` in bundle.json), so plain diffusers cannot sample it." if manifest.bands else ""
    )
    picture = f"\n![unguided samples, not chosen]({grid})\n" if grid else ""
    return f"""# {manifest.name} {manifest.version}

{seen["terms"] or "Terms of use: those of the training data."}

A denoising diffusion model of {manifest.image_size} px images ({manifest.domain}), {manifest.prediction_type} on the
{recipe["schedule"]} schedule. The weights are the {manifest.weights} weights.{guided}{banded}
{picture}
Trained on {seen["training_images"]} images of `{seen["data"]}` ({seen["held_back_images"]} held back),
{seen["images_seen"]} images seen in {seen["steps"]} steps{begun}.{taught}

| setting | value |
|---|---|
{settings}
"""


def _taught(seen: Mapping[str, Any]) -> str:
    if "fine_teacher" in seen:
        low, high = seen["recipe"]["teacher_sigma"]
        return (
            f" It learnt the prediction of {seen['teacher']}, down to σ = {high:g}, and of {seen['fine_teacher']},"
            f" below {low:g} at a 256 px side, and between them a mix of both."
        )
    if seen["recipe"].get("averages"):
        return f" It learnt the prediction of {seen['teacher']}, and what that is, pushed, on the mean over noise."
    return f" It learnt the guided prediction of {seen['teacher']}." if "teacher" in seen else ""
