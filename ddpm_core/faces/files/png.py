"""PNG files (W3C, third edition)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from ddpm_core.faces import colours
from ddpm_core.faces.files import pillow
from ddpm_core.faces.files.header import Header


def open_png(data: bytes) -> Header:
    """Read the header."""
    data = _without_damaged_words(data)
    image = pillow.opened(data, "PNG")
    return pillow.header(image, profile=lambda: _profile(data, image))


def _without_damaged_words(data: bytes) -> bytes:
    """Leave out the chunks beside the pixels whose checksum is wrong; Pillow would refuse the picture for them."""
    damaged = [
        (at, end)
        for at, end, name in _chunks(data)
        # A name that begins in lower case is of what a picture can do without.
        if name[0] & 0x20 and zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big")
    ]
    for at, end in reversed(damaged):
        data = data[:at] + data[end:]
    return data


def _chunks(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Give where each whole chunk begins and ends, and its name."""
    at = 8
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end <= len(data):
            yield at, end, name
        at = end


def _profile(data: bytes, image: Image.Image) -> bytes | None:
    """Give the profile by the standard's order: cICP, iCCP, sRGB, gAMA with cHRM."""
    if codes := _code_points(data):
        primaries, transfer, _, full_range = codes
        return colours.from_code_points(primaries, transfer, full_range=bool(full_range))
    told = image.info
    if "icc_profile" in told or "srgb" in told or not {"gamma", "chromaticity"} & told.keys():
        return None if "srgb" in told and "icc_profile" not in told else pillow.profile_of(image)
    return colours.from_numbers(told.get("chromaticity"), 1 / told["gamma"] if told.get("gamma") else None)


def _code_points(data: bytes) -> bytes | None:
    """Give the four bytes of the chunk cICP, which Pillow does not read."""
    for at, end, name in _chunks(data):
        if name == b"cICP" and end - at == 16:
            return data[at + 8 : at + 12]
        if name == b"IDAT":
            break
    return None
