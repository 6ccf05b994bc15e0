"""`ddpm train` and `ddpm resume`: from a folder of pictures to a model, and on from where a run stopped."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe; may be repeated."),
]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Stop at this step; `ddpm resume` goes on.")]
MaxMinutes = Annotated[float | None, typer.Option(min=0, help="Stop after so many minutes; `ddpm resume` goes on.")]


def train(
    data: Annotated[Path, typer.Argument(help="Folder (sub-folders are classes), zip, or list of images.")],
    out: Annotated[Path, typer.Option(help="Folder for the run: checkpoints, figures, sample grids.")],
    recipe: Annotated[Path | None, typer.Option(help="Settings, such as recipes/faces-64.yaml.")] = None,
    settings: Settings = None,
    max_steps: MaxSteps = None,
    max_minutes: MaxMinutes = None,
) -> None:
    """Train a model on pictures; OUT/last and OUT/best can be sampled, served and resumed at any time.

    Example: ddpm train photos/ --out runs/mine --recipe recipes/faces-64.yaml --set batch=32
    """
    with _told("ddpm train", out) as bar:
        from ddpm_core.training import recipe as recipes
        from ddpm_core.training import run
        from ddpm_core.training.loop import Limits

        run.train(data, out, recipes.read(recipe, settings or ()), Limits(max_steps, max_minutes), bar)


def resume(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run made by `ddpm train`.")],
    settings: Settings = None,
    max_steps: MaxSteps = None,
    max_minutes: MaxMinutes = None,
) -> None:
    """Go on with a run exactly where its newest checkpoint stands.

    Example: ddpm resume runs/mine
    """
    with _told("ddpm resume", folder) as bar:
        from ddpm_core.training import run
        from ddpm_core.training.loop import Limits

        run.resume(folder, settings or (), Limits(max_steps, max_minutes), bar)


class _Bar:
    """Shows the rows of a run's figures as a bar on a terminal; says in any case which images were left out."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self.progress = Progress(*columns, console=console, disable=not sys.stderr.isatty())
        self._task = self.progress.add_task("", total=None)
        self._shown: dict[str, float] = {}

    def __call__(self, row: Mapping[str, Any]) -> None:
        if "dropped" in row:
            self._begin(row)
            return
        self._shown |= row
        names = {"loss": "loss", "validation_loss": "validation", "images_per_second": "images/s"}
        text = "  ".join(f"{name} {self._shown[key]:.4g}" for key, name in names.items() if key in self._shown)
        self.progress.update(self._task, completed=row["step"], description=text)

    def _begin(self, row: Mapping[str, Any]) -> None:
        if row["dropped"]:
            name, why = row["dropped"][0]
            typer.echo(f"{len(row['dropped'])} files left out, the first: {name}: {why}", err=True)
        if row["data_changed"]:
            typer.echo("The data has changed since this run's last checkpoint.", err=True)
        text = f"{row['training_images']} images, {row['held_back_images']} held back"
        self.progress.update(self._task, completed=row["step"], total=row["steps"], description=text)


@contextmanager
def _told(command: str, run: Path) -> Iterator[_Bar]:
    """Show progress; turn a failure into one line and exit code 1; name the last checkpoint when done."""
    from ddpm_core.errors import InvalidInput

    bar = _Bar()
    try:
        with bar.progress:
            yield bar
    except InvalidInput as error:
        typer.echo(f"{command}: {error.message}", err=True)
        raise typer.Exit(1) from error
    except OSError as error:
        typer.echo(f"{command}: {error}; what was saved in {run} is whole, and `ddpm resume {run}` goes on.", err=True)
        raise typer.Exit(1) from error
    typer.echo(run / "last")
