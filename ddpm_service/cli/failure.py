"""A failed command says why in one line on standard error and exits with 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ddpm_service.errors import ServiceError


@contextmanager
def told_in_a_line(command: str) -> Iterator[None]:
    """Turn a ServiceError inside into its message and exit code 1."""
    try:
        yield
    except ServiceError as error:
        typer.echo(f"{command}: {error}", err=True)
        raise typer.Exit(1) from error
