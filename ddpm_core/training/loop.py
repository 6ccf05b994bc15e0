"""The loop of a run: steps, figures, validations, checkpoints, and when to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ddpm_core.errors import Interrupted
from ddpm_core.training.logbook import Logbook
from ddpm_core.training.trainer import Progress, Trainer, diverged, learning_rate

GUIDE = "guide"
"""The averaged network as it was at the share `guide_at` of a run, in the run's folder."""

_STEPS_TO_AGREE = {"cuda": 10}

Report = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Limits:
    """When to stop before the recipe's end: at a step, after some minutes, or when `stop` says so."""

    max_steps: int | None = None
    max_minutes: float | None = None
    stop: Callable[[], bool] = lambda: False

    def last_step(self, steps: int) -> int:
        """Give the step that a sitting of a run of so many steps ends with, if nothing stops it before."""
        return steps if self.max_steps is None else min(steps, self.max_steps)


NO_LIMITS = Limits()


def run(trainer: Trainer, folder: Path, limits: Limits, report: Report) -> Progress:
    """Train to the recipe's end or a limit, and leave a checkpoint of the last step.

    Args:
        trainer: at any step.
        folder: of the run; takes checkpoints, metrics and sample grids.
        limits: what may end it early.
        report: called with each row of the metrics.

    Raises:
        InvalidInput: the loss or the weights are no longer finite; the last checkpoint is from before.
        OSError: something could not be written (a full disk); the last good checkpoint stays.
        Interrupted: `stop` said so in one of several processes. The others must not seem to have come to the end.
    """
    recipe, progress = trainer.recipe, trainer.progress
    book = Logbook(folder, progress.step) if trainer.accelerator.is_main_process else None
    clock = _Clock(progress)
    last_step = limits.last_step(recipe.steps)
    sums = torch.zeros(3, device=trainer.accelerator.device)  # loss, gradient norm, steps
    saved_step, told = progress.step, False
    stop = over = progress.step >= last_step

    def log(**figures: float) -> None:
        row = {"step": progress.step, "images": progress.images, **figures}
        if book is not None:
            book.row(row)
            report(row)

    def save(*, best: bool) -> None:
        nonlocal saved_step
        if book is not None:
            trainer.save(folder, best=best)
            book.curve()
        clock.saved, saved_step = time.monotonic(), progress.step

    try:
        while not stop:
            sums += trainer.step()
            clock.tick()
            at_end = progress.step >= last_step
            if at_end or _due(progress.step, agree_every(trainer.accelerator)):
                over = at_end or clock.over(limits.max_minutes)
                over, told = _agreed(trainer, over, limits.stop() and not over)
                stop = over or told
            if stop or _due(progress.step, recipe.log_every):
                loss, norm = _means(trainer, sums)
                rate = learning_rate(recipe, progress.step - 1)
                log(loss=loss, learning_rate=rate, gradient_norm=norm, images_per_second=clock.speed())
            if len(trainer.held_back) and (_due(progress.step, recipe.validate_every) or progress.step == recipe.steps):
                loss = _validation(trainer)
                better = loss < progress.best and trainer.best_by_loss
                progress.best, progress.stale = min(progress.best, loss), 0 if better else progress.stale + 1
                log(validation_loss=loss)
                stop = stop or 0 < recipe.patience <= progress.stale
                if better:
                    save(best=True)
            if book is not None and progress.step == round(recipe.guide_at * recipe.steps):
                trainer.snapshot(folder / GUIDE)
            if book is not None and _due(progress.step, recipe.sample_every):
                book.grid(progress.step, trainer.samples())
            due = stop or _due(progress.step, recipe.checkpoint_every) or clock.due(recipe.checkpoint_minutes)
            if due and saved_step != progress.step:
                save(best=not trainer.best_by_loss)
        trainer.accelerator.wait_for_everyone()  # the last checkpoint is there when any process returns
    finally:
        if book is not None:
            book.close()
    if told and not over and trainer.accelerator.num_processes > 1:
        raise Interrupted(f"A process of this run was told to stop at step {progress.step}; `ddpm resume` goes on.")
    return progress


class _Clock:
    """The times that a loop asks for."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._earlier = progress, progress.seconds
        self._began = self._logged = self.saved = time.monotonic()
        self._logged_images = progress.images

    def tick(self) -> None:
        self._progress.seconds = self._earlier + time.monotonic() - self._began

    def speed(self) -> float:
        """Images a second since the last call."""
        now, images = time.monotonic(), self._progress.images
        speed = (images - self._logged_images) / (now - self._logged)
        self._logged, self._logged_images = now, images
        return speed

    def over(self, minutes: float | None) -> bool:
        return minutes is not None and time.monotonic() - self._began >= 60 * minutes

    def due(self, minutes: float) -> bool:
        return 0 < 60 * minutes <= time.monotonic() - self.saved


def _means(trainer: Trainer, sums: torch.Tensor) -> tuple[float, float]:
    """Give the mean loss and gradient norm since the last call, over all processes, and start anew."""
    loss, norm, steps = trainer.accelerator.reduce(sums.clone(), "mean").tolist()
    sums.zero_()
    if not math.isfinite(loss):
        raise diverged(trainer.progress.step)
    return loss / steps, norm / steps


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def agree_every(accelerator: Accelerator) -> int:
    """Give the steps after which processes tell each other of a wish to stop: on GPUs each time makes all wait."""
    return _STEPS_TO_AGREE.get(accelerator.device.type, 1) if accelerator.num_processes > 1 else 1


def _agreed(trainer: Trainer, *wishes: bool) -> Sequence[bool]:
    """Tell of each wish whether any process has it."""
    if trainer.accelerator.num_processes == 1:
        return wishes
    flags = torch.tensor(wishes, dtype=torch.float32, device=trainer.accelerator.device)
    return [each > 0 for each in trainer.accelerator.reduce(flags, "sum").tolist()]


def _validation(trainer: Trainer) -> float:
    """Validate in the first process and tell the others, so that all decide alike."""
    shared = [trainer.validate() if trainer.accelerator.is_main_process else 0.0]
    return float(broadcast_object_list(shared)[0])
