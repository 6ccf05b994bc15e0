"""The progress bar of a measurement: on a terminal, on standard error; nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


def bars() -> Progress:
    """Make the bars; a context in which they are shown."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)


@contextmanager
def reported() -> Iterator[Callable[[str, int, int], None]]:
    """Show one bar; what it yields is told what is done, how much of it, and of how much."""
    with bars() as progress:
        task = progress.add_task("", total=None)
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)
