"""Resemblance and realism, measured method by method, on the same targets and from the same noise."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ddpm_core.errors import InvalidInput
from ddpm_core.evaluation.draw import finish
from ddpm_core.evaluation.extractor import wavelet_extractor
from ddpm_core.evaluation.face_network import FaceNetwork
from ddpm_core.evaluation.figures import MIN_IMAGES
from ddpm_core.evaluation.likeness.activations import NAME, SIGMA_256
from ddpm_core.evaluation.likeness.judge import Judge
from ddpm_core.evaluation.likeness.material import Material, Target
from ddpm_core.evaluation.likeness.methods import Method
from ddpm_core.evaluation.sweep import REAL, Report, describe
from ddpm_core.evaluation.table import Row, Table
from ddpm_core.pipeline import Pipeline
from ddpm_core.plan import MAX_IMAGES
from ddpm_core.sampling import MAX_SEED, SampleState


def measure(
    pipeline: Pipeline,
    material: Material,
    methods: Sequence[Method],
    out: Path,
    *,
    num_images: int,
    seed: int = 0,
    look: FaceNetwork | None = None,
    report: Report = lambda *_: None,
) -> list[Row]:
    """Measure every method that `out` does not hold yet.

    The first row, of method `real`, is one half of the real faces against the other. Interrupted, it loses the method
    under way alone, and goes on there when called again.

    Args:
        pipeline: the model.
        material: targets and real faces.
        methods: ways to make a face.
        out: the table, JSON.
        num_images: of each target, 1..16.
        seed: of the first image; image i of target t has seed + t·num_images + i.
        look: the face network; its figures are left out without.
        report: told how far it is.

    Returns:
        The rows asked for, in the order of `methods`; each holds its settings and its figures.

    Raises:
        InvalidInput: too few images, calls that the model does not have, or `out` is no table.
    """
    faces = sum(target.face for target in material.targets)
    total = num_images * len(material.targets)
    _within("num_images", num_images, 1, MAX_IMAGES)
    _within("seed", seed, 0, MAX_SEED - total + 1)
    _enough(faces * num_images, "targets", f"{num_images} images of each of {faces} targets with a face")
    _enough(len(material.reference.names), "reference", f"{len(material.reference.names)} images in the reference")
    bundle = pipeline.bundle
    about = {
        **describe(pipeline, material.reference, wavelet_extractor(), seed, look),
        "own_features": f"{NAME}, σ {SIGMA_256:g}",
        "person_pattern": material.person_pattern,
        "targets": len(material.targets),
        "targets_with_face": faces,
        "targets_fingerprint": material.fingerprint,
        "images_a_target": num_images,
    }
    settings = [{**about, **method.settings(bundle)} for method in methods]
    real = {**about, "method": REAL}
    table = Table(out)
    halves = min(len(half) for half in material.reference.halves)
    wanted = ([real] if halves >= MIN_IMAGES else []) + settings
    missing = [cell for cell in wanted if table.find(cell) is None]
    if missing:
        report("features of real faces", 0, 1)
        judge = Judge(pipeline, material, look)
        if real in missing:
            table.add({**real, **judge.real(faces * num_images)})
        to_do = [(method, cell) for method, cell in zip(methods, settings, strict=True) if cell in missing]
        for i, (method, cell) in enumerate(to_do):
            show = _Progress(report, method.name, i * total, len(to_do) * total)
            begin = time.perf_counter()
            images = finish(pipeline.denoiser, states(pipeline, material.targets, method, num_images, seed), show)
            seconds = round(time.perf_counter() - begin, 2)
            table.add({**cell, **judge.measure(images), "sampling_seconds": seconds})
    rows = [table.find(cell) for cell in wanted]
    return [row for row in rows if row is not None]


def states(
    pipeline: Pipeline, targets: Sequence[Target], method: Method, num_images: int, seed: int
) -> Iterator[SampleState]:
    """Begin the images of a method, those of each target in turn; image i of target t has seed + t·num_images + i."""
    for t, target in enumerate(targets):
        yield from method.plan(pipeline.bundle, target, num_images, seed + t * num_images).start()


class _Progress:
    """A method's images, counted on top of those of the methods before."""

    def __init__(self, report: Report, what: str, done: int, total: int) -> None:
        self._report, self._what, self._done, self._total = report, what, done, total

    def __call__(self, images: int) -> None:
        self._done += images
        self._report(self._what, self._done, self._total)


def _within(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        allowed = f"{low}..{high}"
        raise InvalidInput("out_of_range", f"{field} must be in {allowed}.", field=field, given=value, allowed=allowed)


def _enough(given: int, field: str, what: str) -> None:
    if given < MIN_IMAGES:
        message = f"{what} are too few to measure; at least {MIN_IMAGES} are needed, 200 or more are better."
        raise InvalidInput("too_few_images", message, field=field, given=given, allowed=f"{MIN_IMAGES} or more")
