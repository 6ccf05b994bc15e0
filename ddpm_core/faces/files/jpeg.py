"""JPEG files: their decoder tells what it missed, and makes large pictures small as it reads."""

from __future__ import annotations

import math
import re
from typing import Any

import simplejpeg
from PIL import Image

from ddpm_core.faces.files import pillow
from ddpm_core.faces.files.header import Header, Raw
from ddpm_core.faces.files.reduced import of_image

_END = b"\xff\xd9"
# What libjpeg remarks about whole pictures; a few stray bytes before the end are some cameras' habit.
_HARMLESS = re.compile(
    r"data: \d extraneous bytes before marker 0xd9|Adobe color transform|JFIF revision"
    "|Inconsistent progression|Invalid SOS parameters"
)
# Mode → what is asked of the decoder, and how Pillow takes it: CMYK is stored inverted, as Adobe does.
_SPACES = {"L": ("GRAY", "L"), "RGB": ("RGB", "RGB"), "CMYK": ("CMYK", "CMYK;I")}


def open_jpeg(data: bytes) -> Header:
    """Read the header."""
    # one with a second picture inside (depth, burst) is Pillow's MPO; its first picture is the photograph
    image = pillow.opened(data, "JPEG", "MPO")
    return Header(*image.size, 1 if _comes_in_rows(data) else 6, lambda factor: _read(data, image, factor))


def _read(data: bytes, image: Image.Image, factor: int) -> Raw:
    halved = min(factor, 8)  # by the decoder
    space, stored = _SPACES[image.mode]
    least = (math.ceil(side / halved) for side in image.size)
    pixels = _pixels(data, colorspace=space, **dict(zip(("min_width", "min_height"), least, strict=True)))
    picture = Image.frombytes(image.mode, (pixels.shape[1], pixels.shape[0]), pixels.data, "raw", stored)
    picture = of_image(picture, factor // halved)
    return Raw(picture, pillow.orientation(image.getexif), lambda: pillow.profile_of(image))


def _pixels(data: bytes, **how: Any) -> Any:
    """Decode to (H, W, C) uint8, whether the end marker is there or not.

    Raises:
        ValueError: pixels are missing.
    """
    if not data.endswith(_END):
        data = data.rstrip(b"\0")
        data += (b"\0" if data.endswith(b"\xff") else b"") + _END
    try:
        return simplejpeg.decode_jpeg(data, strict=True, **how)
    except ValueError as error:
        if not _HARMLESS.search(str(error)):
            raise
        return simplejpeg.decode_jpeg(data, strict=False, **how)


def _comes_in_rows(data: bytes) -> bool:
    """Tell whether one scan holds everything; of several, a decoder keeps all coefficients up to the last."""
    at, components = 2, 0
    while at + 10 < len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in (0xC0, 0xC1):
            components = data[at + 9]
        elif marker == 0xDA:
            return data[at + 4] == components
        at += 1 if marker == 0xFF else 2 + length
    return False
