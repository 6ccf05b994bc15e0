"""A checkpoint becomes a bundle to serve and to keep: 16-bit averaged weights, a model card with a sample grid."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from ddpm_core.bundle import Bundle, read_bundle, write_bundle
from ddpm_core.errors import InvalidInput
from ddpm_core.training import samples
from ddpm_core.training.card import model_card

GRID, SAMPLES = "samples.png", 64


def export(checkpoint: Path, out: Path, version: str) -> Bundle:
    """Write a checkpoint's averaged network, in 16 bit, as a bundle of its own.

    Args:
        checkpoint: such as RUN/best or RUN/last.
        out: the bundle's folder, such as models/faces-64/1.0; must not exist.
        version: such as 1.0.

    Raises:
        InvalidInput: not a checkpoint, weights that 16 bits cannot hold, or `out` exists.
    """
    if out.exists():
        raise InvalidInput("out_exists", f"{out} exists already.", field="out", given=str(out))
    source = read_bundle(checkpoint)
    network = source.load_network().half()
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise InvalidInput("overflow", f"Weights of {checkpoint} are too large for 16 bits.", field="checkpoint")
    manifest = source.manifest.model_copy(update={"version": version})
    write_bundle(out, network, source.schedule.config, manifest, model_card(manifest, GRID))
    bundle = read_bundle(out)
    grid = samples.draw(
        bundle.load_network(),
        bundle.schedule,
        manifest.prediction_type,
        bundle.shape,
        range(SAMPLES),
        patch=manifest.patch,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    Image.fromarray(grid).save(out / GRID)
    return bundle
