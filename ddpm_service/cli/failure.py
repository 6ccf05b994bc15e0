"""A failed command says why in one line on standard error and exits with 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ddpm_service.errors import ServiceError


def _tellable() -> tuple[type[Exception], ...]:
    """Give what a user can mend; the core is imported only when something has failed."""
    from ddpm_core.errors import InvalidInput

    return (ServiceError, InvalidInput, OSError)


@contextmanager
def told_in_a_line(command: str) -> Iterator[None]:
    """Turn an error that a user can mend into its message and exit code 1."""
    try:
        yield
    except BrokenPipeError:
        raise  # who reads has read enough: nothing is to be told
    except _tellable() as error:
        typer.echo(f"{command}: {in_words(error)}", err=True)
        raise typer.Exit(1) from error


def in_words(error: Exception) -> str:
    """Say what happened to which file, without the system's number for it."""
    if isinstance(error, FileExistsError):
        return f"{error.filename}: it is there already, and is no folder"
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error)
