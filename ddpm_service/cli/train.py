"""`ddpm prepare`, `train`, `resume` and `export`: from pictures to a trained model."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ddpm_service.cli.choices import Domain, between
from ddpm_service.cli.extras import extra
from ddpm_service.cli.failure import in_words

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe; may be repeated."),
]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Stop at this step; `ddpm resume` goes on.")]
MaxMinutes = Annotated[float | None, typer.Option(min=0, help="Stop after so many minutes; `ddpm resume` goes on.")]

_QUIET_SECONDS = 10.0  # between two lines of a log


def prepare(
    source: Annotated[Path, typer.Argument(help="Folder, zip, list of files, or list of http(s) addresses.")],
    out: Annotated[Path, typer.Option(help="Folder for images/, report.json and dropped.png.")],
    size: Annotated[int, typer.Option(min=8, help="Side of the images made, in pixels.")] = 64,
    domain: Annotated[
        Domain, typer.Option(help="Crop the largest face, or with `any` the middle square.")
    ] = Domain.ANY,
    min_side: Annotated[
        int | None, typer.Option(min=1, help="Smallest crop in the original; --size if not given.")
    ] = None,
    allow_private: Annotated[
        bool,
        typer.Option("--allow-private", help="Fetch from your own network too, and by proxies. Read the list first."),
    ] = False,
) -> None:
    """Make a training set: leave out what cannot be read, is too small, a duplicate or a collage; crop the rest.

    Example: ddpm prepare photos/ --out sets/mine --size 64 --domain human_face
    """
    from ddpm_core.data.prepare import prepare as make_set

    with _told("ddpm prepare"), _progress() as bar:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        report = make_set(
            source, out, size, domain=domain, min_side=min_side, allow_private=allow_private, progress=show
        )
    reasons = ", ".join(f"{count} {reason}" for reason, count in report["dropped"].items())
    typer.echo(f"{report['kept']} of {report['found']} kept" + (f"; left out: {reasons}" if reasons else ""), err=True)
    typer.echo(out / "images")


def train(
    data: Annotated[Path, typer.Argument(help="Folder (sub-folders are classes), zip, or list of images.")],
    out: Annotated[Path, typer.Option(help="Folder for the run: checkpoints, figures, sample grids.")],
    recipe: Annotated[Path | None, typer.Option(help="Settings, such as recipes/faces-64.yaml.")] = None,
    name: Annotated[str | None, typer.Option(help="What the model is called. (default: the name of OUT)")] = None,
    terms: Annotated[str, typer.Option(help="What your pictures allow the model to be used for.")] = "",
    settings: Settings = None,
    max_steps: MaxSteps = None,
    max_minutes: MaxMinutes = None,
) -> None:
    """Train a model on pictures; OUT/last and, from the first validation on, OUT/best can be sampled and served.

    Example: ddpm train photos/ --out runs/mine --recipe recipes/faces-64.yaml --set batch=32
    """
    with _told("ddpm train", out), _Figures() as figures:
        with extra("train"):
            from ddpm_core.training import recipe as recipes
            from ddpm_core.training import run
            from ddpm_core.training.loop import Limits
        # A recipe's name and terms are those of the model that it was written for.
        own = [f"name={json.dumps(name or _name_of(out))}", f"terms={json.dumps(terms)}"]
        wanted = recipes.read(recipe, [*own, *(settings or ())])
        run.train(data, out, wanted, Limits(max_steps, max_minutes), figures.show)
    typer.echo(out / "last")


def _name_of(out: Path) -> str:
    """Give a folder's name with what no address or file can carry replaced."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", out.absolute().name).strip("-_.") or "model"


def resume(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run made by `ddpm train`.")],
    settings: Settings = None,
    max_steps: MaxSteps = None,
    max_minutes: MaxMinutes = None,
) -> None:
    """Go on with a run exactly where its newest checkpoint stands.

    Example: ddpm resume runs/mine
    """
    with _told("ddpm resume", folder), _Figures() as figures:
        with extra("train"):
            from ddpm_core.training import run
            from ddpm_core.training.loop import Limits
        run.resume(folder, settings or (), Limits(max_steps, max_minutes), figures.show)
    typer.echo(folder / "last")


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint: RUN/best, or RUN/last.")],
    out: Annotated[Path, typer.Option(help="The bundle's folder, such as models/mine/1.0.")],
    version: Annotated[str, typer.Option(help="The version it will be served as.")] = "1.0",
    guide: Annotated[
        Path | None,
        typer.Option(help="A worse model of the same kind to guide it. (default: what the run kept by guide_at)"),
    ] = None,
    guide_weight: Annotated[float, between(1, 3, help="how far the guide pushes.")] = 1.5,
    guide_interval: Annotated[
        tuple[float, float], typer.Option(help="Where it pushes: lowest and highest σ of a 256 px picture.")
    ] = (1, 60),
    samples: Annotated[int, between(1, 256, help="images in the sample grid, each as much work as a face.")] = 64,
) -> None:
    """Make a bundle to serve and keep: the averaged weights in 16 bit, with a model card and a sample grid.

    With a guide the faces become whole more often, at the price of its calls: each pushed step costs both networks.

    Example: ddpm export runs/mine/best --out models/mine/1.0
    """
    from ddpm_core.training.export import export as make_bundle

    with _told("ddpm export"):
        make_bundle(checkpoint, out, version, guide, _push(guide_weight, guide_interval), count=samples)
    typer.echo(out)


def _push(weight: float, interval: tuple[float, float]) -> Any:
    from ddpm_core.bundle import Guide
    from ddpm_core.errors import InvalidInput

    low, high = interval
    if not 0 <= low < high:
        allowed = "two numbers of 0 or more, the lower one first"
        message = f"--guide-interval {low:g} {high:g} must be {allowed}."
        raise InvalidInput("out_of_range", message, field="guide_interval", given=interval, allowed=allowed)
    return Guide(weight=weight, interval=interval)


class _Figures:
    """How a run goes: a bar on a terminal, elsewhere a line now and then; always what is odd about the data."""

    def __enter__(self) -> _Figures:
        self._bar = _progress()
        self._bar.start()
        self._task = self._bar.add_task("", total=None)
        self._latest: dict[str, float] = {}
        self._line = ""
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        self._say()

    def show(self, row: Mapping[str, Any]) -> None:
        """Take the first row, about the data, or a row of figures."""
        if "dropped" in row:
            self._begin(row)
            return
        self._latest |= row
        names = {"loss": "loss", "validation_loss": "validation", "images_per_second": "images/s"}
        text = "  ".join(f"{name} {self._latest[key]:.4g}" for key, name in names.items() if key in self._latest)
        self._bar.update(self._task, completed=row["step"], description=text)
        self._line = f"step {row['step']} of {self._end}  {text}{self._left(row['step'])}"
        if time.monotonic() - self._said > _QUIET_SECONDS:
            self._say()

    def _begin(self, row: Mapping[str, Any]) -> None:
        if row["dropped"]:
            from ddpm_core.data.left_out import told

            typer.echo(told(row["dropped"]), err=True)
        if row["data_changed"]:
            typer.echo("The data has changed since this run's last checkpoint.", err=True)
        if row["not_compiled_for_want_of"]:
            typer.echo(f"`compile` is off: this machine lacks {row['not_compiled_for_want_of']}.", err=True)
        self._start, self._end, self._began = row["step"], row["steps"], time.monotonic()
        self._line = f"{row['training_images']} images, {row['held_back_images']} held back"
        self._bar.update(self._task, completed=self._start, total=self._end, description=self._line)
        self._say()

    def _left(self, step: int) -> str:
        pace = (time.monotonic() - self._began) / max(1, step - self._start)
        left = timedelta(seconds=round(pace * (self._end - step)))
        return f"  {left} left" if left else ""

    def _say(self) -> None:
        """Where no bar is seen, say the newest line, each once."""
        if self._bar.disable and self._line:
            typer.echo(self._line, err=True)
        self._line, self._said = "", time.monotonic()


def _progress() -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())


@contextmanager
def _told(command: str, run: Path | None = None) -> Iterator[None]:
    """Turn a failure into one line and exit code 1, or 75 where the same command may go on."""
    from ddpm_core.errors import Interrupted, InvalidInput

    try:
        yield
    except Interrupted as stopped:
        typer.echo(f"{command}: {stopped}", err=True)
        raise typer.Exit(os.EX_TEMPFAIL) from stopped
    except InvalidInput as error:
        typer.echo(f"{command}: {error.message}", err=True)
        raise typer.Exit(1) from error
    except OSError as error:
        kept = run is not None and (run / "last").exists()
        hint = f"; the checkpoints in {run} are whole: `ddpm resume {run}` goes on" if kept else ""
        typer.echo(f"{command}: {in_words(error)}{hint}.", err=True)
        raise typer.Exit(1) from error
