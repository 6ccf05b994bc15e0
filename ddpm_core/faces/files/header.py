"""What every kind of file gives: its header first, and then its pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image


class Animated(Exception):
    """There are several pictures, to be shown one after the other."""


class PreviewOnly(Exception):
    """The full picture is of a kind that cannot be decoded here; the message says what can."""


@dataclass(frozen=True)
class Raw:
    """Pixels as the file holds them.

    Attributes:
        pixels: 8-bit RGB, L or CMYK; what is transparent is white.
        orientation: EXIF's, still to be applied, 1..8.
        profile: gives the ICC profile of the colours, None where they are sRGB; it may raise UnknownColours.
    """

    pixels: Image.Image
    orientation: int
    profile: Callable[[], bytes | None]


@dataclass(frozen=True)
class Header:
    """A file of which no pixel is decoded yet.

    Attributes:
        width, height: in pixels, as they are stored.
        bytes_per_pixel: of memory that reading takes at its peak, measured.
        read: gives the pixels, both sides divided by a power of two.
    """

    width: int
    height: int
    bytes_per_pixel: int
    read: Callable[[int], Raw]
