"""A run is a folder: starting one, and going on with it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import nn

from ddpm_core.bundle import MANIFEST, read_bundle, write_bundle
from ddpm_core.data.collection import refuse_inside
from ddpm_core.data.images import ImageSet, load
from ddpm_core.data.split import split
from ddpm_core.data.stream import Stream
from ddpm_core.errors import InvalidInput
from ddpm_core.precision import Precision
from ddpm_core.training import checkpoint, loop, machine
from ddpm_core.training import recipe as recipes
from ddpm_core.training.card import model_card
from ddpm_core.training.description import bands_of, describe
from ddpm_core.training.loop import NO_LIMITS, Limits, Report
from ddpm_core.training.recipe import Recipe
from ddpm_core.training.trainer import Progress, Trainer
from ddpm_core.whole import write_whole
from ddpm_core.writer import only_writer_of_folder

RECIPE = "recipe.yaml"
_PATHS = ("data", "init", "teacher", "fine_teacher", "critic")  # of this machine, so no bundle says them
_ACCELERATES = {Precision.FLOAT32: "no", Precision.BFLOAT16: "bf16", Precision.FLOAT16: "fp16"}
# Gloo's threads hold the last tensors a moment longer than the call that reduced them. A thread that lets go of a
# tensor while Python ends aborts the process: one in 36 did on busy cores (torch 2.13, Python 3.11).
_LAST_TENSORS_SECONDS = 0.5


def train(
    data: Path, out: Path, recipe: Recipe, limits: Limits = NO_LIMITS, report: Report = lambda _: None
) -> Progress:
    """Start a run.

    Args:
        data: folder, zip or list of images.
        out: the run's folder; must not hold a run already, nor lie in the data.
        recipe: the settings.
        limits: what may end it before the recipe's end.
        report: called with each row of the metrics.

    Raises:
        InvalidInput: a run that exists or is written by another process, unusable data or settings, or numbers that
            are no longer finite.
        OSError: a full disk; the last good checkpoint stays.
        Interrupted: one of several processes was told to stop before the end.
    """
    with _held(out, "out"):
        if (out / RECIPE).exists():
            raise InvalidInput(
                "run_exists", f"{out} already holds a run; `ddpm resume` goes on with it.", field="out", given=str(out)
            )
        return _run(out, recipe.model_copy(update={"data": str(data)}), None, limits, report)


def resume(
    run: Path, overrides: Sequence[str] = (), limits: Limits = NO_LIMITS, report: Report = lambda _: None
) -> Progress:
    """Go on with a run from its newest whole checkpoint, or from its start when there is none yet.

    Args:
        run: the run's folder.
        overrides: settings to change from here on, such as `steps=200000`.
        limits: what may end it before the recipe's end.
        report: called with each row of the metrics.

    Raises:
        InvalidInput: no run there, or as for `train`.
        OSError, Interrupted: as for `train`.
    """
    if not (run / RECIPE).exists():
        raise InvalidInput("no_run", f"There is no run in {run}: {RECIPE} is missing.", field="run", given=str(run))
    with _held(run, "run"):
        recipe = recipes.read(run / RECIPE, overrides)
        start = checkpoint.latest(run) if any((run / "checkpoints").glob("step-*")) else None
        return _run(run, recipe, start, limits, report)


def _held(run: Path, field: str) -> AbstractContextManager[None]:
    """Keep others from a run; of several processes that train it together the first does so for all."""
    return only_writer_of_folder(run, field) if os.environ.get("RANK", "0") == "0" else nullcontext()


def _run(folder: Path, recipe: Recipe, start: Path | None, limits: Limits, report: Report) -> Progress:
    # It may be resumed from elsewhere.
    paths = {key: getattr(recipe, key) for key in _PATHS}
    recipe = recipe.model_copy(update={key: str(Path(path).resolve()) if path else "" for key, path in paths.items()})
    refuse_inside(Path(recipe.data), folder)
    accelerator = accelerator_for(recipe)
    with machine.first_process_first(accelerator):  # it decodes the pictures, the others find them decoded
        images = load(
            Path(recipe.data), recipe.image_size, recipe.channels, classes=recipe.classes, cache=folder / "cache"
        )
    kept, held = split(images.names, images.digests, recipe.validation, recipe.person_pattern)
    if not kept or not held:  # too few to split
        kept, held = list(range(len(images.names))), []
    training = Stream(images.pixels, kept, accelerator.device, seed=recipe.seed, flip=recipe.flip, crop=recipe.crop)
    provenance = {
        "data": Path(recipe.data).name,
        "data_fingerprint": images.fingerprint,
        "training_images": len(kept),
        "held_back_images": len(held),
        "terms": recipe.terms,
        "recipe": recipe.model_dump(mode="json", exclude={*_PATHS}),
    }
    for key in ("teacher", "fine_teacher"):
        if path := getattr(recipe, key):
            teacher = read_bundle(path).manifest
            push = recipe.teacher_guide or (teacher.guide.weight if teacher.guide else 1)
            provenance[key] = f"{teacher.name} {teacher.version}, w = {push:g}"
    if recipe.critic:
        critic = read_bundle(recipe.critic).manifest
        provenance["critic"] = f"{critic.name} {critic.version}"
    parent = read_bundle(recipe.init) if recipe.init and start is None else None
    if parent is not None:
        seen = parent.manifest.provenance.get("images_seen", "an unknown number of")
        provenance["init"] = f"{parent.manifest.name} {parent.manifest.version}, {seen} images seen"
    before = None if start is None else read_bundle(start).manifest
    if before is not None and "init" in before.provenance:
        provenance["init"] = before.provenance["init"]
    # What was measured before the first step holds to the end; a bundle that cannot be is refused before it.
    described = describe(recipe, provenance, bands_of(recipe, training) if before is None else before.bands)

    def write(path: Path, network: nn.Module, progress: Progress) -> None:
        manifest = described.manifest.model_copy(update={"provenance": {**provenance, **_seen(progress)}})
        write_bundle(path, network, described.schedule.config, manifest, model_card(manifest))

    held_back = Stream(images.pixels[held], range(len(held)), accelerator.device)
    trainer = Trainer(recipe, described, accelerator, training, held_back, write)
    if start is not None:
        trainer.load(start)
    elif parent is not None:
        trainer.begin_with(parent)
    accelerator.wait_for_everyone()  # all have looked at what was there before
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder, recipe)
        lacks = machine.missing_to_compile(accelerator.device) if recipe.compile else ""
        about = _about(limits.last_step(recipe.steps), images, kept, held, start)
        report({**about, "not_compiled_for_want_of": lacks})
    try:
        with _stopped_by_signal() as asked:
            return loop.run(trainer, folder, replace(limits, stop=lambda: asked() or limits.stop()), report)
    finally:
        if accelerator.num_processes > 1:
            time.sleep(_LAST_TENSORS_SECONDS)


def accelerator_for(recipe: Recipe) -> Accelerator:
    """Give the device, the other processes and the precision that the recipe is trained with here."""
    cpu = not torch.accelerator.is_available()  # processes on CPUs find each other only when told
    AcceleratorState._reset_state()  # another run of this process may have had another precision
    precision = machine.precision_for(recipe.precision, PartialState(cpu=cpu).device)
    return Accelerator(cpu=cpu, mixed_precision=_ACCELERATES[precision])


def _write(folder: Path, recipe: Recipe) -> None:
    write_whole(folder / RECIPE, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def _about(
    steps: int, images: ImageSet, kept: Sequence[int], held: Sequence[int], start: Path | None
) -> Mapping[str, Any]:
    """Give the first row that is reported: what a sitting starts from."""
    before = json.loads((start / MANIFEST).read_text(encoding="utf-8"))["provenance"] if start is not None else {}
    return {
        "step": before.get("steps", 0),
        "steps": steps,
        "training_images": len(kept),
        "held_back_images": len(held),
        "dropped": images.dropped,
        "data_changed": before.get("data_fingerprint", images.fingerprint) != images.fingerprint,
    }


def _seen(progress: Progress) -> Mapping[str, Any]:
    return {"steps": progress.step, "images_seen": progress.images, "seconds": round(progress.seconds)}


@contextmanager
def _stopped_by_signal() -> Iterator[Any]:
    """Turn SIGTERM and SIGINT into a wish to stop after the step under way, with a checkpoint."""
    asked = False

    def note(*_: Any) -> None:
        nonlocal asked
        asked = True

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
