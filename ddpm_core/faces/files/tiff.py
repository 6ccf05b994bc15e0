"""TIFF files, and DNG and other cameras' raw files, which are TIFF too."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from ddpm_core.faces.files import pillow
from ddpm_core.faces.files.header import Header, PreviewOnly
from ddpm_core.faces.files.jpeg import open_jpeg

_KIND, _WIDTH, _HEIGHT, _ORIENTATION, _INNER, _JPEG, _JPEG_LENGTH = 254, 256, 257, 274, 330, 513, 514
_MASK = 4  # a bit of the kind
_MOST = 64
_ENOUGH = 1280  # pixels of the long side with which a preview does for the picture


@dataclass(frozen=True)
class _Directory:
    """One of a file's pictures: where it is described, and how."""

    at: int
    tags: Any

    def number(self, tag: int) -> int:
        """Give a tag's number; nought where it is not there or is none."""
        value = self.tags.get(tag, 0)
        return value if isinstance(value, int) else 0


def open_tiff(data: bytes) -> Header:
    """Read the header of the largest picture that can be decoded: a file's first one may be a thumbnail.

    Raises:
        PreviewOnly: only a small one can.
    """
    directories = [found for found in _directories(data) if not found.number(_KIND) & _MASK]
    largest = max((found.number(_WIDTH) * found.number(_HEIGHT) for found in directories), default=0)
    headers = []
    for found in directories:
        try:
            headers.append((_header(data, found), found))
        except Exception:  # a raw picture, for one
            continue
    best, chosen = max(headers, key=lambda item: item[0].width * item[0].height)
    if best.width * best.height < largest and max(best.width, best.height) < _ENOUGH:
        raise PreviewOnly(f"{best.width} × {best.height}")
    if chosen is directories[0] or chosen.number(_ORIENTATION):
        return best  # Pillow has turned it
    turned = directories[0].number(_ORIENTATION)
    return replace(best, read=lambda factor: replace(best.read(factor), orientation=turned))


def _directories(data: bytes) -> Iterator[_Directory]:
    """Give the file's pictures in their order, those inside others too."""
    file, order = io.BytesIO(data), _order(data)
    waiting, seen = list(struct.unpack_from(f"{order}I", data, 4)), {0}
    while waiting and len(seen) <= _MOST:
        at = waiting.pop(0)
        if at in seen:
            continue
        seen.add(at)
        tags = ImageFileDirectory_v2(data[:8])
        try:
            file.seek(at)
            tags.load(file)
        except Exception:  # cut off, or no directory; others may be whole
            continue
        yield _Directory(at, tags)
        inner = tags.get(_INNER, ())
        waiting += [*(inner if isinstance(inner, tuple) else (inner,)), tags.next]


def _header(data: bytes, found: _Directory) -> Header:
    start, length = found.number(_JPEG), found.number(_JPEG_LENGTH)
    if start and length:
        return open_jpeg(data[start : start + length])
    first = struct.pack(f"{_order(data)}I", found.at)
    # Pillow reads the directory that the file begins with.
    return pillow.header(pillow.opened(data if data[4:8] == first else data[:4] + first + data[8:], "TIFF"))


def _order(data: bytes) -> str:
    return "<" if data.startswith(b"II") else ">"
