"""PNG files (W3C, third edition)."""

from __future__ import annotations

import struct

from PIL import Image

from ddpm_core.faces import colours
from ddpm_core.faces.files import pillow
from ddpm_core.faces.files.header import Header


def open_png(data: bytes) -> Header:
    """Read the header."""
    image = pillow.opened(data, "PNG")
    return pillow.header(image, profile=lambda: _profile(data, image))


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
    at = 8
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"cICP" and length == 4:
            return data[at + 8 : at + 12]
        if name == b"IDAT":
            break
        at += 12 + length
    return None
