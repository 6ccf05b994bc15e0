"""A checkpoint becomes a bundle to serve and to keep: 16-bit averaged weights, a model card with a sample grid."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from PIL import Image

from ddpm_core.bundle import MANIFEST, Bundle, Guide, add_guide, read_bundle, write_bundle
from ddpm_core.errors import InvalidInput
from ddpm_core.training import samples
from ddpm_core.training.card import model_card
from ddpm_core.training.loop import GUIDE
from ddpm_core.writer import only_writer

GRID, SAMPLES = "samples.png", 64
PUSH = Guide(weight=1.5, interval=(1, 60))


def export(
    checkpoint: Path,
    out: Path,
    version: str,
    guide: Path | None = None,
    push: Guide = PUSH,
    *,
    count: int = SAMPLES,
) -> Bundle:
    """Write a checkpoint's averaged network, in 16 bit, as a bundle of its own.

    Args:
        checkpoint: such as RUN/best or RUN/last.
        out: the bundle's folder, such as models/faces-64/2.1; must not exist. Nothing is there when this fails.
        version: such as 1.0.
        guide: bundle of a worse network for autoguidance; the run's own snapshot, where it has one, unless said.
        push: how far the guide pushes, and where.
        count: images in the sample grid.

    Raises:
        InvalidInput: no checkpoint, not one of a training here, weights that 16 bits cannot hold, a guide of
            another kind, or `out` exists or is written by another process.
        OSError: it could not be written.
    """
    if out.exists():
        raise InvalidInput("out_exists", f"{out} exists already.", field="out", given=str(out))
    last = checkpoint.with_name("last")
    if not checkpoint.exists() and last.exists():
        message = f"There is no {checkpoint}; before the first validation a run has only {last}."
        raise InvalidInput("no_checkpoint", message, field="checkpoint", given=str(checkpoint), allowed=str(last))
    source = read_bundle(checkpoint)
    if "recipe" not in source.manifest.provenance:
        message = f"{checkpoint} was not trained here: its provenance in {MANIFEST} names no recipe."
        raise InvalidInput(
            "not_trained_here", message, field="checkpoint", given=str(checkpoint), allowed="RUN/best or RUN/last"
        )
    network = source.load_network().half()
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise InvalidInput("overflow", f"Weights of {checkpoint} are too large for 16 bits.", field="checkpoint")
    kept = checkpoint.with_name(GUIDE)
    guide = kept if guide is None and kept.exists() else guide
    manifest = source.manifest.model_copy(update={"version": version})
    card = model_card(manifest.model_copy(update={"guide": push if guide else None}), GRID)
    home = next(parent for parent in out.absolute().parents if parent.exists())
    with only_writer(out), tempfile.TemporaryDirectory(prefix=".export-", dir=home) as aside:
        place = Path(aside) / "bundle"
        bundle = write_bundle(place, network, source.schedule.config, manifest, card)
        if guide is not None:
            bundle = add_guide(place, guide, push)
        grid = samples.grid(
            bundle,
            bundle.load_network(),
            range(count),
            torch.device("cuda" if torch.cuda.is_available() else "cpu"),
            guide=bundle.load_guide(),
        )
        Image.fromarray(grid).save(place / GRID)
        out.parent.mkdir(parents=True, exist_ok=True)
        place.rename(out)
    return read_bundle(out)
