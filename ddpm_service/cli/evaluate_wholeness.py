"""`ddpm evaluate wholeness`: what people found broken teaches best of K to know it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddpm_service.cli.failure import told_in_a_line
from ddpm_service.cli.loading import Device, RunCode
from ddpm_service.cli.progress import bars


def wholeness(
    bundle: Annotated[Path, typer.Argument(help="The model: a folder with bundle.json, which is written to.")],
    tallies: Annotated[
        list[Path],
        typer.Argument(help="Judged tallies, CSV, of `ddpm evaluate look`; their keys and faces lie beside them."),
    ],
    device: Device = None,
    run_code: RunCode = False,
) -> None:
    """Learn from judged sheets which faces are whole; best of K then shows those first.

    It takes several faces of each selfie, such as six, and a hundred selfies or more: say yes or no in the tally of
    `ddpm evaluate look … --methods celebrity --num-images 6`. More than one may judge: a copy of the tally, its key
    and its faces for each. Run it after `ddpm evaluate gate`, which puts photographs in the place of all that.

    Example: ddpm evaluate wholeness models/faces-64/2.1 look.csv
    """
    with told_in_a_line("ddpm evaluate wholeness"):
        import torch

        from ddpm_core import load
        from ddpm_core.bundle import keep_statistics
        from ddpm_core.errors import InvalidInput
        from ddpm_core.evaluation.judged import read_judged, told_apart
        from ddpm_core.evaluation.usual import features_of
        from ddpm_core.wholeness import fit

        pipeline = load(bundle, device=device, run_code=run_code)
        manifest = pipeline.bundle.manifest
        judged = read_judged(tallies, manifest.image_size)
        with bars() as progress:
            task = progress.add_task("looking", total=len(judged.pixels))
            found = features_of(pipeline, judged.pixels, lambda n: progress.advance(task, n))
        if found is None:
            message = f"{manifest.name}'s network keeps one size throughout, so it has no features to go by."
            raise InvalidInput("no_features", message, field="bundle", given=str(bundle))
        share, pairs = told_apart(found, judged)
        source = f"{len(judged.pixels)} judged faces of {judged.of.max() + 1} selfies"
        learnt = fit(found, torch.from_numpy(judged.broken), torch.from_numpy(judged.of), source)
        keep_statistics(bundle, manifest.statistics.model_copy(update={"wholeness": learnt}))
        typer.echo(
            f"{bundle}: learnt from {source}; of two faces of a selfie not learnt from, one broken and one whole, "
            f"it tells which in {share:.0%} of {pairs} pairs"
        )
