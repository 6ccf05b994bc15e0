"""`ddpm evaluate likeness`: how like a selfie the faces are, how real they look, and whether they are copies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ddpm_service.cli.choices import between
from ddpm_service.cli.evaluate_faces import face_network
from ddpm_service.cli.failure import told_in_a_line
from ddpm_service.cli.loading import Device, Dtype, RunCode
from ddpm_service.cli.progress import reported


def _json(path: Path) -> Path:
    if path.suffix != ".json":
        raise typer.BadParameter(f"{path} does not end in .json.")
    return path


def likeness(
    bundle: Annotated[Path, typer.Argument(help="The model: a folder with bundle.json.")],
    targets: Annotated[
        list[Path],
        typer.Option(help="Faces to resemble: a folder of photographs, or a zip or list of aligned ones; repeatable."),
    ],
    reference: Annotated[
        Path, typer.Option(help="Real aligned faces to measure against, several of some persons: folder, zip or list.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Table of figures, JSON, rows that it holds already are kept; .md and .png are written beside it.",
            callback=_json,
        ),
    ],
    methods: Annotated[
        str | None,
        typer.Option(
            help="What is compared, with commas: a mode[:calls], pixel:scale[:calls], or a point of the curve "
            "start:grid:weight[:stop[:chroma[:calls[:apart]]]]; several numbers with / between them. "
            "(default: none,celebrity,likeness,faithful,pixel:10/20/50)"
        ),
    ] = None,
    num_images: Annotated[int, typer.Option(help="Images of each target, 1..16.")] = 4,
    num_targets: Annotated[
        int | None, typer.Option(min=1, help="So many faces of each zip or list of targets. (default: all)")
    ] = None,
    held_back: Annotated[
        bool, typer.Option("--held-back", help="Of zips, lists and the reference only what training held back.")
    ] = False,
    validation: Annotated[
        float | None, between(0, 1, help="the share that it held back. (default: what the bundle says)")
    ] = None,
    person_pattern: Annotated[
        str | None,
        typer.Option(help="Regular expression on a file's path; its first group names the person. (default: LFW's)"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the first image; the next ones count up.")] = 0,
    device: Device = None,
    dtype: Dtype = "auto",
    run_code: RunCode = False,
) -> None:
    """Measure resemblance against realism, a row a method; print the table. Interrupted, it goes on when called again.

    Example: ddpm evaluate likeness models/faces-64/2.1 --targets photos --reference faces64.zip --out likeness.json

    Example: ddpm evaluate likeness models/faces-64/2.1 --targets photos --targets faces64.zip --num-targets 200
    --held-back --reference faces64.zip --methods none,likeness,pixel:20/50,6.2/10:8/16:.5/.7 --out likeness.json
    """
    with told_in_a_line("ddpm evaluate likeness"):
        from ddpm_core import load
        from ddpm_core.evaluation import reference as real
        from ddpm_core.evaluation.likeness.material import PERSON_PATTERN, read_material
        from ddpm_core.evaluation.likeness.methods import DEFAULT, parse_methods
        from ddpm_core.evaluation.likeness.picture import draw_likeness
        from ddpm_core.evaluation.likeness.report import describe, face_table, table, write_report
        from ddpm_core.evaluation.likeness.sweep import measure

        compared = parse_methods(methods or DEFAULT)
        pipeline = load(bundle, device=device, dtype=dtype, run_code=run_code)
        share = None
        if held_back:
            share = validation if validation is not None else real.held_back_share(pipeline.bundle)
        material = read_material(
            targets,
            reference,
            pipeline,
            num_targets=num_targets,
            held_back=share,
            person_pattern=person_pattern or real.person_pattern(pipeline.bundle) or PERSON_PATTERN,
        )
        look = face_network(pipeline.bundle.manifest.domain)
        with reported() as report:
            rows = measure(
                pipeline,
                material,
                compared,
                out,
                num_images=num_images,
                seed=seed,
                look=look,
                report=report,
            )
        picture = out.with_suffix(".png")
        write_report(rows, picture.name, out.with_suffix(".md"))
        draw_likeness(rows, picture)
        tables = [table(rows), face_table(rows)]
        summary = describe(rows)
    printed = Console(width=max(200, Console().width))
    for headings, lines in tables:
        shown = Table(*headings, box=None)
        for column in shown.columns:
            column.no_wrap = True
        for line in lines:
            shown.add_row(*line)
        if lines:
            printed.print(shown)
    printed.print(summary, soft_wrap=True, highlight=False)
    for path in (out, out.with_suffix(".md"), picture):
        typer.echo(path)
