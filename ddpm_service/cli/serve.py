"""`ddpm serve`: everything that answers requests, under one process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddpm_service.cli.failure import told_in_a_line


def serve(
    models: Annotated[Path, typer.Option(help="What to serve; applied again when it changes.")] = Path("models.yaml"),
    config: Annotated[Path, typer.Option(help="TorchServe's settings.")] = Path("config.properties"),
) -> None:
    """Start TorchServe with the models of models.yaml, watch it, and stop all of it on Ctrl-C or SIGTERM.

    Example: ddpm serve --models models.yaml
    """
    from ddpm_service.torchserve.supervise import Supervisor

    with told_in_a_line("ddpm serve"):
        raise typer.Exit(Supervisor(config, models).run())
