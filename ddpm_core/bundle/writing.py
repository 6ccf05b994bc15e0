"""A bundle written: whole, given a guide, or given statistics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from ddpm_core.bundle.files import (
    GUIDE_CONFIG,
    GUIDE_WEIGHTS,
    MANIFEST,
    MODEL_INDEX,
    SCHEDULER_CONFIG,
    UNET_CONFIG,
    WEIGHTS,
    read_json,
    sha256,
    write_json,
)
from ddpm_core.bundle.manifest import Guide, Manifest, Statistics
from ddpm_core.bundle.reading import Bundle, read_bundle
from ddpm_core.errors import InvalidInput
from ddpm_core.whole import write_whole


def write_bundle(
    path: Path,
    network: nn.Module,
    scheduler_config: Mapping[str, Any],
    manifest: Manifest,
    readme: str,
    settings: Mapping[str, Any] | None = None,
) -> Bundle:
    """Write a bundle that diffusers can read too (where `patch` is 1, without bands), 16-bit weights kept as they are.

    Args:
        path: the folder; made, files in it replaced.
        network: a diffusers model, a module with a `config` mapping that holds `_class_name` and its settings, or any
            other with `settings`.
        scheduler_config: the schedule's settings in diffusers' words.
        manifest: without checksums; they are computed here.
        readme: the model card.
        settings: what the network is made with, where it does not say so itself.
    """
    config: Any = network.config if settings is None else settings
    unet = {key: value for key, value in dict(config).items() if key != "_name_or_path"}
    unet.setdefault("_class_name", type(network).__name__)
    scheduler = {
        "_class_name": "DDPMScheduler",
        "prediction_type": str(manifest.prediction_type),
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "variance_type": "fixed_small",
        **{key: value for key, value in scheduler_config.items() if value is not None},
    }
    index = {
        "_class_name": "DDPMPipeline",
        "unet": ["diffusers", unet["_class_name"]],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    for name, value in ((UNET_CONFIG, unet), (SCHEDULER_CONFIG, scheduler), (MODEL_INDEX, index)):
        write_json(path / name, value)
    # Copied: weights that a network uses twice are two names of one memory, and the format does not know that.
    weights = {key: value.clone(memory_format=torch.contiguous_format) for key, value in network.state_dict().items()}
    save_file(weights, path / WEIGHTS)
    files = [UNET_CONFIG, SCHEDULER_CONFIG, WEIGHTS] + ([manifest.network.file] if manifest.network else [])
    manifest = manifest.model_copy(update={"checksums": {name: sha256(path / name) for name in files}})
    write_json(path / MANIFEST, manifest.model_dump(mode="json", exclude_none=True))
    write_whole(path / "README.md", readme)
    return read_bundle(path)


def add_guide(path: Path, source: Path, guide: Guide) -> Bundle:
    """Give a bundle the network of another one as its guide, in 16 bit.

    Args:
        path: the bundle; its `bundle.json` is written again.
        source: a worse model of the same kind: an earlier checkpoint of the same run, or a smaller network; with bands
            also one of the coarse band alone.
        guide: how far it pushes, and where.

    Raises:
        InvalidInput: a model of another kind, by what sets it apart; or a bundle that is not usable.
    """
    bundle, worse = read_bundle(path), read_bundle(source)
    kind = bundle.coarse if bundle.manifest.bands and not worse.manifest.bands else bundle
    for name in ("image_size", "channels", "patch", "prediction_type", "bands"):
        ours, theirs = getattr(kind.manifest, name), getattr(worse.manifest, name)
        if ours != theirs:
            raise _no_guide(source, f"its {name} is {theirs}", f"{name} {ours}")
    if worse.manifest.network is not None:
        raise _no_guide(source, "it brings its own code", "UNet2DModel or AttentionUNet")
    ours, theirs = kind.schedule.alpha_bar, worse.schedule.alpha_bar
    if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=1e-6, atol=0):
        raise _no_guide(source, "its noise schedule is another", f"the schedule of {path}")
    write_json(path / GUIDE_CONFIG, read_json(source / UNET_CONFIG))
    save_file(worse.load_network().half().state_dict(), path / GUIDE_WEIGHTS)
    sums = {name: sha256(path / name) for name in (GUIDE_CONFIG, GUIDE_WEIGHTS)}
    manifest = bundle.manifest.model_copy(update={"guide": guide, "checksums": {**bundle.manifest.checksums, **sums}})
    write_json(path / MANIFEST, manifest.model_dump(mode="json", exclude_none=True))
    return read_bundle(path)


def keep_statistics(path: Path, statistics: Statistics) -> None:
    """Write statistics into a bundle's `bundle.json`; all else in it stays."""
    manifest = read_bundle(path).manifest.model_copy(update={"statistics": statistics})
    write_json(path / MANIFEST, manifest.model_dump(mode="json", exclude_none=True))


def _no_guide(source: Path, why: str, allowed: str) -> InvalidInput:
    message = f"{source} cannot guide this model: {why}; it takes {allowed}."
    return InvalidInput("bad_guide", message, field="guide", given=str(source), allowed=allowed)
