"""Where a command reads its picture, and where it writes those that it makes: a folder, or one file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from ddpm_api import OutputFormat

_FORMATS = {".png": OutputFormat.PNG, ".jpg": OutputFormat.JPEG, ".jpeg": OutputFormat.JPEG, ".webp": OutputFormat.WEBP}


def read_picture(image: Path) -> bytes:
    """The bytes of `--image`: of a file, or of standard input for `-`."""
    if image == Path("-"):
        return sys.stdin.buffer.read()
    if not image.is_file():
        raise typer.BadParameter(f"File '{image}' does not exist.", param_hint="--image")
    return image.read_bytes()


def picture_format(out: Path) -> OutputFormat | None:
    """The file format that a path asks for; None for a folder."""
    return None if out.is_dir() else _FORMATS.get(out.suffix.lower())


@contextmanager
def folder_for(out: Path) -> Iterator[None]:
    """Make the folder to write to, or that of a picture; take it away again if it stays empty because of a failure."""
    folder = out.parent if picture_format(out) else out
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for path in made:
            if any(path.iterdir()):
                break
            path.rmdir()
        raise
