"""Where images lie: a folder, a zip or a list of files, read one by one."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from ddpm_core.errors import InvalidInput

SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class Collection(Protocol):
    """Named images in a fixed order; a name is a path with `/`, and its first folder is the class."""

    @property
    def names(self) -> Sequence[str]:
        """Every image's name."""
        ...

    def read(self, name: str) -> bytes:
        """Give the bytes of one file.

        Raises:
            OSError: it is not there, damaged or encrypted.
        """
        ...

    def stamp(self, name: str) -> tuple[int, int]:
        """Give what tells a file from what it was before, without reading it: its size, and its time or checksum."""
        ...


class _Files:
    """Files below a folder."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root, self.names = root, names

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def stamp(self, name: str) -> tuple[int, int]:
        try:
            found = (self.root / name).stat()
        except OSError:  # a list may name what is not there
            return 0, 0
        return found.st_size, found.st_mtime_ns


class _Zip:
    """Members of a zip; `ZipFile` itself lets threads read at once."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        self.names = sorted(name for name in self._zip.namelist() if _is_image(name))

    def read(self, name: str) -> bytes:
        try:
            return self._zip.read(name)
        except Exception as error:  # of a damaged or encrypted member each decompressor says it in its own way
            raise OSError(f"the zip's member cannot be read: {error}") from error

    def stamp(self, name: str) -> tuple[int, int]:
        member = self._zip.getinfo(name)
        return member.file_size, member.CRC


def open_collection(path: Path) -> Collection:
    """Open a folder (walked to any depth), a zip, or a text file with one image path a line.

    Relative paths in a list are relative to the list's folder.

    Raises:
        InvalidInput: nothing there, not such a thing, or no image in it.
    """
    collection: Collection
    if path.is_dir():
        found = (file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
        collection = _Files(path, sorted(name for name in found if _is_image(name)))
    elif not path.is_file():
        raise InvalidInput("no_data", f"There is no folder, zip or list {path}.", field="data", given=str(path))
    elif zipfile.is_zipfile(path):
        try:
            collection = _Zip(path)
        except Exception as error:  # as for its members
            message = f"The zip {path} is damaged: {error}."
            raise InvalidInput("no_data", message, field="data", given=str(path)) from error
    else:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            message = f"{path} is neither a zip nor a list of image paths."
            raise InvalidInput("no_data", message, field="data", given=str(path)) from None
        collection = _Files(path.parent, [line.strip() for line in lines if line.strip()])
    if not collection.names:
        words = " ".join(sorted(SUFFIXES))
        raise InvalidInput(
            "no_images", f"There are no images in {path}.", field="data", given=str(path), allowed=f"files in {words}"
        )
    return collection


def refuse_inside(source: Path, out: Path) -> None:
    """Refuse to write into a folder that is read: what is written there would be taken for more of it.

    Raises:
        InvalidInput: `out` is the folder `source` or lies in it.
    """
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        message = f"{out} lies inside the source {source}: choose a folder outside it."
        raise InvalidInput("out_in_source", message, field="out", given=str(out), allowed=f"outside {source}")


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not hidden and path.suffix.lower() in SUFFIXES
