"""`ddpm pack`: a bundle becomes a TorchServe archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddpm_service.cli.failure import told_in_a_line


def pack(
    bundle: Annotated[Path, typer.Argument(help="The model: a folder with bundle.json.")],
    model_store: Annotated[Path, typer.Option(help="Where archives lie.")] = Path("model_store"),
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of another model with this name and version.")
    ] = False,
) -> None:
    """Build the self-contained archive of a model and print its path.

    Example: ddpm pack models/faces-64/2.1
    """
    from ddpm_core.bundle import read_bundle
    from ddpm_core.plan import most_calls
    from ddpm_core.writer import only_writer
    from ddpm_service import archive

    with told_in_a_line("ddpm pack"):
        target = archive.archive_of(bundle, model_store)
        offers = {"most_calls": most_calls(read_bundle(bundle))}
        model_store.mkdir(parents=True, exist_ok=True)
        with only_writer(target, "model_store"):
            typer.echo(archive.pack(bundle, model_store, replace=replace, offers=offers))
