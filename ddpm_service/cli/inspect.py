"""`ddpm inspect`: what a bundle is, and whether it is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ddpm_service.cli.failure import told_in_a_line


def inspect(
    bundle: Annotated[Path, typer.Argument(help="The model: a folder with bundle.json.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what a model is, and check that its files are whole and fit together. Code that it brings is not run.

    Example: ddpm inspect models/faces-64/1.1
    """
    with told_in_a_line("ddpm inspect"):
        from ddpm_core.bundle import UNET_CONFIG, read_bundle

        read = read_bundle(bundle)
        own = read.manifest.network
        # Whether weights fit code of their own only that code can tell.
        weights = read.read_weights() if own else dict(read.load_network().named_parameters())
        config = json.loads((bundle / UNET_CONFIG).read_text(encoding="utf-8"))
        facts: dict[str, Any] = {
            **read.manifest.model_dump(mode="json", exclude_none=True, exclude={"checksums"}),
            "network_class": config.get("_class_name"),
            "own_code": f"{own.file}, not run" if own else None,
            "parameters": sum(each.numel() for each in weights.values()),
            "schedule": read.schedule.config.get("beta_schedule"),
            "levels": read.schedule.num_levels,
            "checksums": "ok" if read.manifest.checksums else "none given",
        }
    if as_json:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    table = Table(show_header=False, box=None)
    for key, value in facts.items():
        if value not in ({}, [], None):
            table.add_row(key, f"{value:,}" if isinstance(value, int) else str(value))
    Console().print(table)
