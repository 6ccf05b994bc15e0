"""`ddpm evaluate look` and `tally`: faces are looked at without knowing what made them, and the broken ones counted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ddpm_service.cli.choices import between
from ddpm_service.cli.failure import told_in_a_line
from ddpm_service.cli.loading import Device, Dtype, RunCode
from ddpm_service.cli.progress import reported


def _png(path: Path) -> Path:
    if path.suffix != ".png":
        raise typer.BadParameter(f"{path} does not end in .png.")
    return path


def look(
    bundles: Annotated[list[Path], typer.Argument(help="One or more models: folders with bundle.json.")],
    targets: Annotated[
        list[Path],
        typer.Option(help="Faces to resemble: a folder of photographs, or a zip or list of aligned ones; repeatable."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="The sheet, PNG (several get a number each); a tally, .csv, and its key, .key.json, come beside it.",
            callback=_png,
        ),
    ],
    methods: Annotated[
        str, typer.Option(help="What is compared, with commas; written as for `ddpm evaluate likeness`.")
    ] = "celebrity,likeness,faithful",
    num_images: Annotated[int, between(1, 16, help="rows of each target.")] = 1,
    num_targets: Annotated[
        int | None, typer.Option(min=1, help="So many faces of each zip or list of targets. (default: all)")
    ] = None,
    held_back: Annotated[
        bool, typer.Option("--held-back", help="Of zips and lists only what the first model's training held back.")
    ] = False,
    validation: Annotated[
        float | None, between(0, 1, help="the share that it held back. (default: what the bundle says)")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows a sheet.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of the first row; the next ones count up.")] = 0,
    device: Device = None,
    dtype: Dtype = "auto",
    run_code: RunCode = False,
) -> None:
    """Draw a sheet to judge blind: targets down, methods across under letters that only the key explains.

    Write yes or no into the tally, then count with `ddpm evaluate tally`.

    Example: ddpm evaluate look models/faces-64/2.1 --targets photos --methods likeness,faithful --out look.png
    """
    with told_in_a_line("ddpm evaluate look"):
        import numpy as np

        from ddpm_core import load
        from ddpm_core.errors import InvalidInput
        from ddpm_core.evaluation import reference as real
        from ddpm_core.evaluation.likeness.material import PERSON_PATTERN, read_targets
        from ddpm_core.evaluation.likeness.methods import parse_methods
        from ddpm_core.evaluation.look import files, make_look, write_look

        tally, _ = files(out)
        if tally.exists():
            message = f"{tally} is there already, and what was judged may be in it: give another --out."
            raise InvalidInput("exists", message, field="out", given=str(out))
        compared = parse_methods(methods)
        pipelines = [load(bundle, device=device, dtype=dtype, run_code=run_code) for bundle in bundles]
        first = pipelines[0].bundle
        share = None
        if held_back:
            share = validation if validation is not None else real.held_back_share(first)
        models = [
            (
                pipeline,
                read_targets(
                    targets,
                    pipeline,
                    num_targets=num_targets,
                    held_back=share,
                    person_pattern=real.person_pattern(first) or PERSON_PATTERN,
                ),
            )
            for pipeline in pipelines
        ]
        with reported() as report:
            sheet = make_look(
                models, compared, np.random.default_rng(), num_images=num_images, seed=seed, report=report
            )
        for path in write_look(sheet, out, rows):
            typer.echo(path)


def tally(
    tally: Annotated[Path, typer.Argument(help="The tally of a sheet, CSV, with yes or no for broken.")],
    key: Annotated[Path | None, typer.Option(help="The sheet's key. (default: the one beside the tally)")] = None,
) -> None:
    """Count the broken faces of every method on a sheet that was judged, with the interval of their share.

    Example: ddpm evaluate tally look.csv
    """
    with told_in_a_line("ddpm evaluate tally"):
        from ddpm_core.evaluation.look import files
        from ddpm_core.evaluation.tally import count

        counts = count(tally, key or files(tally)[1])
    shown = Table("model", "method", "broken", "of", "share", "95 % interval", "not judged", box=None)
    for each in counts:
        low, high = each.interval
        shown.add_row(
            f"{each.settings['model']} {each.settings['version']}",
            each.settings["method"],
            str(each.broken),
            str(each.judged),
            f"{each.broken / each.judged:.0%}" if each.judged else "",
            f"{low:.0%} to {high:.0%}",
            str(each.unjudged),
        )
    Console(width=max(120, Console().width)).print(shown)
