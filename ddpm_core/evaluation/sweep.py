"""A model measured cell by cell: a sampler at a number of steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ddpm_core.bundle import GUIDE_WEIGHTS, WEIGHTS, sha256
from ddpm_core.errors import InvalidInput
from ddpm_core.evaluation.draw import draw
from ddpm_core.evaluation.extractor import Extractor, Yardstick
from ddpm_core.evaluation.face_figures import FaceFigures
from ddpm_core.evaluation.face_network import FaceNetwork
from ddpm_core.evaluation.figures import MIN_IMAGES
from ddpm_core.evaluation.reference import Reference
from ddpm_core.evaluation.table import Row, Table
from ddpm_core.pipeline import Pipeline
from ddpm_core.sampling import MAX_SEED, Sampler

Report = Callable[[str, int, int], object]
"""Called with what is done, how much of it, and of how much."""

REAL = "real"
_OF_THE_DATA = ("image_size", "features", "features_version", "face_network", "reference", "reference_fingerprint")


def evaluate(
    pipeline: Pipeline,
    reference: Reference,
    extractor: Extractor,
    cells: Sequence[tuple[Sampler, int]],
    out: Path,
    *,
    num_images: int,
    seed: int = 0,
    look: FaceNetwork | None = None,
    report: Report = lambda *_: None,
) -> list[Row]:
    """Measure every cell that `out` does not hold yet; all cells start from the same noise.

    The first row, of sampler `real`, is one half of the reference against its other half: what a perfect model would
    get. Interrupted, it loses the cell under way alone, and goes on there when called again.

    Args:
        pipeline: the model.
        reference: real images.
        extractor: the features.
        cells: sampler and number of network calls.
        out: the table, JSON.
        num_images: samples a cell.
        seed: of the first sample; sample i has seed + i.
        look: the face network; its figures are left out without.
        report: told how far it is.

    Returns:
        The rows asked for, in the order of `cells`; each holds its settings and its figures.

    Raises:
        InvalidInput: too few images, a number of steps that the model does not have, or `out` is no table.
    """
    _enough(num_images, "num_images", "samples")
    _enough(len(reference.names), "reference", "images in the reference")
    if not 0 <= seed <= MAX_SEED - num_images + 1:
        allowed = f"0..{MAX_SEED - num_images + 1}"
        raise InvalidInput("out_of_range", f"seed must be in {allowed}.", field="seed", given=seed, allowed=allowed)
    schedule = pipeline.bundle.schedule
    for _, steps in cells:
        schedule.karras(schedule.num_levels, steps)
    table = Table(out)
    about = describe(pipeline, reference, extractor, seed, look)
    settings = [
        {**about, "sampler": str(sampler), "num_inference_steps": steps, "num_images": num_images}
        for sampler, steps in cells
    ]
    half, other = sorted(reference.halves, key=len)
    half = half[:num_images]
    real = {
        **{key: about[key] for key in _OF_THE_DATA if key in about},
        "reference_images": len(other),
        "sampler": REAL,
        "num_images": len(half),
    }
    wanted = ([real] if len(half) >= MIN_IMAGES else []) + settings
    missing = [cell for cell in wanted if table.find(cell) is None]
    if missing:
        report("features of the reference", 0, 1)
        known = extractor(reference.pixels)
        yardstick = Yardstick(known, substitute=extractor.substitute)
        faces = FaceFigures(look, reference.pixels) if look else None
        to_do = [cell for cell in missing if cell is not real]
        if real in missing:
            among = Yardstick(known[other], substitute=extractor.substitute)
            table.add({**real, **among.measure(known[half]), **(faces.of_real(half, other) if faces else {})})
        for i, cell in enumerate(to_do):
            show = _Progress(report, cell, i * num_images, len(to_do) * num_images)
            table.add({**cell, **_cell(pipeline, extractor, yardstick, faces, cell, show)})
    rows = [table.find(cell) for cell in wanted]
    return [row for row in rows if row is not None]


class _Progress:
    """A cell's images, counted on top of those of the cells before."""

    def __init__(self, report: Report, cell: dict[str, Any], done: int, total: int) -> None:
        self._report, self._done, self._total = report, done, total
        self._what = f"{cell['sampler']}, {cell['num_inference_steps']} calls"

    def __call__(self, images: int) -> None:
        self._done += images
        self._report(self._what, self._done, self._total)


def _cell(
    pipeline: Pipeline,
    extractor: Extractor,
    yardstick: Yardstick,
    faces: FaceFigures | None,
    cell: dict[str, Any],
    show: Callable[[int], object],
) -> dict[str, float]:
    begin = time.perf_counter()
    seeds = range(cell["seed"], cell["seed"] + cell["num_images"])
    pixels = draw(
        pipeline.bundle,
        pipeline.denoiser,
        seeds,
        sampler=cell["sampler"],
        num_inference_steps=cell["num_inference_steps"],
        on_images=show,
    )
    seconds = time.perf_counter() - begin
    figures = {**yardstick.measure(extractor(pixels)), "sampling_seconds": round(seconds, 2)}
    return {**figures, **faces.measure(faces.look(pixels))} if faces else figures


def describe(
    pipeline: Pipeline, reference: Reference, extractor: Extractor, seed: int, look: FaceNetwork | None
) -> dict[str, Any]:
    """Give what stands beside every figure: without it no figure can be compared with another."""
    return {
        **describe_model(pipeline),
        "seed": seed,
        "features": extractor.name,
        "features_version": extractor.version,
        **({"face_network": look.version} if look else {}),
        "reference": reference.part,
        "reference_fingerprint": reference.fingerprint,
        "reference_images": len(reference.names),
    }


def describe_model(pipeline: Pipeline) -> dict[str, Any]:
    """Give what of a model decides its pictures; of its guide too, where it has one."""
    manifest, folder = pipeline.bundle.manifest, pipeline.bundle.path
    about = {
        "model": manifest.name,
        "version": manifest.version,
        "weights": manifest.weights,
        "weights_sha256": sha256(folder / WEIGHTS),
        "image_size": manifest.image_size,
        "dtype": str(pipeline.denoiser.dtype).removeprefix("torch."),
    }
    if manifest.guide is None:
        return about
    strength = {f"guide_{name}": value for name, value in manifest.guide.model_dump(mode="json").items()}
    return {**about, "guide_sha256": sha256(folder / GUIDE_WEIGHTS), **strength}


def _enough(given: int, field: str, what: str) -> None:
    if given < MIN_IMAGES:
        raise InvalidInput(
            "too_few_images",
            f"{given} {what} are too few to measure; at least {MIN_IMAGES} are needed, 1000 or more are better.",
            field=field,
            given=given,
            allowed=f"{MIN_IMAGES} or more",
        )
