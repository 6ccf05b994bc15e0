"""What only some commands need is installed apart; without it they say how to get it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import here what comes with one of the package's extras.

    Raises:
        InvalidInput: a package of it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        from ddpm_core.errors import InvalidInput

        message = f"{error.name} is not installed: pip install 'ddpm-lookalike[{name}]'."
        raise InvalidInput("missing_package", message, field=error.name) from error
