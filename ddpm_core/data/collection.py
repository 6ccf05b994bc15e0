"""Where images lie: a folder, a zip or a list of files, read one by one."""

from __future__ import annotations

import zipfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from ddpm_core.data.bounds import MAX_BYTES, check_zip
from ddpm_core.data.left_out import (
    HIDDEN,
    LINKED_AGAIN,
    NO_IMAGE,
    UNKNOWN_ENDING,
    UNREADABLE,
    count_reasons,
    in_words,
)
from ddpm_core.errors import InvalidInput
from ddpm_core.faces.files import kind_of

SUFFIXES = frozenset(
    {".avif", ".bmp", ".dng", ".gif", ".heic", ".heif", ".hif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png"}
    | {".tif", ".tiff", ".webp"}
)
_FIRST_BYTES = 64

# What unpacks piece by piece; others make gigabytes of a few bytes at once.
_BOUNDED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


class Collection(Protocol):
    """Named images in a fixed order; a name is a path with `/`, and its first folder is the class."""

    @property
    def names(self) -> Sequence[str]:
        """Every image's name."""
        ...

    @property
    def unused(self) -> Mapping[str, str]:
        """Why each other file that was seen is none of them."""
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

    def __init__(self, root: Path, names: Sequence[str], unused: Mapping[str, str] | None = None) -> None:
        self.root, self.names, self.unused = root, names, unused or {}

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
        check_zip(self._zip, path.stat().st_size)
        members = [name for name in self._zip.namelist() if not name.endswith("/")]
        self.unused = {name: why for name in members if (why := _why_not(name, self._first_bytes))}
        self.names = sorted(set(members) - self.unused.keys())

    def _first_bytes(self, name: str) -> bytes:
        try:
            with self._zip.open(name) as member:
                return member.read(_FIRST_BYTES)
        except Exception as error:  # as for a whole member
            raise OSError(str(error)) from error

    def read(self, name: str) -> bytes:
        try:
            member = self._zip.getinfo(name)
            if member.compress_type not in _BOUNDED:
                raise OSError("it is packed in a way that is not taken; stored and deflated are")
            with self._zip.open(member) as file:
                data = file.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise OSError(f"it is larger than {MAX_BYTES // 2**20} MiB")
            return data
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
        collection = _walk(path)
    elif not path.is_file():
        raise InvalidInput("no_data", f"There is no folder, zip or list {path}.", field="data", given=str(path))
    elif zipfile.is_zipfile(path):
        try:
            collection = _Zip(path)
        except Exception as error:  # as for its members
            message = f"The zip {path} is damaged or not taken: {error}."
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
        seen = in_words(count_reasons(collection.unused.values()))
        message = f"There are no images in {path}" + (f" (seen: {seen})" if seen else "") + f". Their endings: {words}."
        raise InvalidInput("no_images", message, field="data", given=str(path), allowed=f"files in {words}")
    return collection


def _walk(root: Path) -> _Files:
    """Find the files below a folder, also through links; each folder once, and first by its own name."""
    names, unused = [], {}
    seen: set[Path] = set()
    waiting, linked = [root], deque[Path]()
    while waiting or linked:
        folder = waiting.pop() if waiting else linked.popleft()
        if folder.resolve() in seen:
            unused[folder.relative_to(root).as_posix()] = LINKED_AGAIN
            continue
        seen.add(folder.resolve())
        try:
            inside = sorted(folder.iterdir())
        except OSError as error:
            unused[folder.relative_to(root).as_posix()] = f"{UNREADABLE}: {error.strerror}"
            continue
        for file in inside:
            name = file.relative_to(root).as_posix()
            if file.is_dir():
                (linked if file.is_symlink() else waiting).append(file)
            elif why := _why_not(name, lambda name: _first_bytes(root / name)):
                unused[name] = why
            else:
                names.append(name)
    return _Files(root, sorted(names), unused)


def _first_bytes(file: Path) -> bytes:
    if not file.is_file():
        raise OSError("no file: a broken link or a device")
    with file.open("rb") as opened:
        return opened.read(_FIRST_BYTES)


def refuse_inside(source: Path, out: Path) -> None:
    """Refuse to write into a folder that is read: what is written there would be taken for more of it.

    Raises:
        InvalidInput: `out` is the folder `source` or lies in it.
    """
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        message = f"{out} lies inside the source {source}: choose a folder outside it."
        raise InvalidInput("out_in_source", message, field="out", given=str(out), allowed=f"outside {source}")


def _why_not(name: str, first_bytes: Callable[[str], bytes]) -> str:
    """Say why a file is no image of a set; nothing where it is one, by its ending."""
    path = PurePosixPath(name)
    if any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
        return HIDDEN
    if path.suffix.lower() in SUFFIXES:
        return ""
    try:
        kind = kind_of(first_bytes(name))
    except OSError as error:
        return f"{UNREADABLE}: {error.strerror or error}"
    return f"{UNKNOWN_ENDING}: {kind}" if kind else NO_IMAGE
