"""Where a command writes its pictures: a folder, or one file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddpm_api import OutputFormat

_FORMATS = {".png": OutputFormat.PNG, ".jpg": OutputFormat.JPEG, ".jpeg": OutputFormat.JPEG, ".webp": OutputFormat.WEBP}


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
