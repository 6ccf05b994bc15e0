"""`ddpm import`: a model that was trained elsewhere becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddpm_service.cli.choices import Domain, PredictionType, Schedule, between
from ddpm_service.cli.failure import told_in_a_line


def import_(
    source: Annotated[
        str, typer.Argument(help="A diffusers folder, a hub id, or a .pt, .pth, .ckpt, .bin or .safetensors file.")
    ],
    out: Annotated[Path, typer.Option(help="The bundle's folder, such as models/NAME/VERSION.")],
    name: Annotated[str | None, typer.Option(help="The model's name. (default: from --out)")] = None,
    version: Annotated[str | None, typer.Option(help="Its version. (default: from --out)")] = None,
    domain: Annotated[Domain, typer.Option(help="What it makes: how selfies are aligned.")] = Domain.ANY,
    image_size: Annotated[int | None, between(8, 2048, help="side in pixels. (default: as the source says)")] = None,
    prediction_type: Annotated[
        PredictionType | None, typer.Option(help="What the network predicts. (default: as the source says)")
    ] = None,
    schedule: Annotated[
        Schedule | None,
        typer.Option(help="The noise schedule; 1000 levels if --config names none. (default: as in the source)"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help='What nothing else says, as JSON: {"network": {…}, "scheduler": {…}} in diffusers\' words.',
        ),
    ] = None,
    model_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="The network's own code: it is run, and packed with the model."),
    ] = None,
    network: Annotated[str | None, typer.Option(help="The class in --model-file.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Which weights, of several: a folder's file, or what stands before a network's names."),
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="The checksum that the file with the weights must have.")] = None,
    terms: Annotated[str | None, typer.Option(help="Under which terms the weights may be used.")] = None,
) -> None:
    """Make a bundle of a model that was trained elsewhere, and one image with it to prove that it works.

    Nothing in the source is run; only a --model-file is, because it was named. What the source does not say is asked
    for by the name of its option.

    Example: ddpm import google/ddpm-celebahq-256 --out models/faces-256/1.0 --domain human_face
    """
    if (model_file is None) != (network is None):
        raise typer.BadParameter("--model-file FILE.py and --network NAME belong together.")
    with told_in_a_line("ddpm import"):
        from ddpm_core import importers

        said = importers.read_config(config) if config else {}
        answers = importers.Answers(
            name=name or out.absolute().parent.name,
            version=version or out.name,
            domain=domain,
            image_size=image_size,
            prediction_type=prediction_type,
            schedule=importers.Schedule(schedule) if schedule else None,
            network=said.get("network", {}),
            scheduler=said.get("scheduler", {}),
            code=(model_file, network) if model_file and network else None,
            terms=terms,
            weights=weights,
            sha256=sha256,
        )
        _, notes = importers.import_model(source, out, answers)
    for note in notes:
        typer.echo(note, err=True)
    typer.echo(out)
