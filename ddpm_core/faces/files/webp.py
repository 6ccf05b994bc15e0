"""WebP files (RFC 9649)."""

from __future__ import annotations

from ddpm_core.faces.files import pillow
from ddpm_core.faces.files.header import Header, Raw
from ddpm_core.faces.files.holes import refuse_holes


def open_webp(data: bytes) -> Header:
    """Read the header, by hand: Pillow allocates the canvas when it opens a file."""
    return Header(*_size(data), 16, lambda factor: _read(data, factor))


def _read(data: bytes, factor: int) -> Raw:
    start, end = _picture(data)
    refuse_holes(data[start:end])
    missing = 8 + int.from_bytes(data[4:8], "little") - len(data)
    if missing > 0 and end <= len(data):  # of what comes behind the picture
        data += bytes(missing)
    return pillow.raw(pillow.opened(data, "WEBP"), factor)


def _size(data: bytes) -> tuple[int, int]:
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise EOFError
    if chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF


def _picture(data: bytes) -> tuple[int, int]:
    """Give where the compressed pixels begin and end; nothing of an animation."""
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name in (b"VP8 ", b"VP8L"):
            return at + 8, at + 8 + size
        at += 8 + size + size % 2
    return 0, 0
