"""Files that Pillow reads, and what it knows of their colours."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

from PIL import Image
from PIL.ExifTags import IFD, Base, Interop

from ddpm_core.faces import colours
from ddpm_core.faces.files.header import Animated, Header, Raw
from ddpm_core.faces.files.reduced import of_image

Profile = Callable[[], bytes | None]


def opened(data: bytes, *kinds: str) -> Image.Image:
    """Open a file as one of Pillow's formats."""
    with warnings.catch_warnings():  # of its size, whose limit is ours, and of odd metadata
        warnings.simplefilter("ignore")
        return Image.open(io.BytesIO(data), formats=kinds)


def header(image: Image.Image, bytes_per_pixel: int = 5, profile: Profile | None = None) -> Header:
    """Describe a picture that is open; `profile` where Pillow does not know its colours."""
    return Header(*image.size, bytes_per_pixel, lambda factor: raw(image, factor, profile))


def raw(image: Image.Image, factor: int, profile: Profile | None = None) -> Raw:
    """Read the pixels of a picture that is open.

    Raises:
        Animated: it is one.
    """
    if image.format != "TIFF" and getattr(image, "is_animated", False):
        raise Animated
    image.load()
    return Raw(of_image(image, factor), orientation(image.getexif), profile or (lambda: profile_of(image)))


def orientation(read: Callable[[], Image.Exif]) -> int:
    """Give EXIF's orientation, 1..8."""
    try:
        given = int(read().get(Base.Orientation, 1))
    except Exception:  # damaged EXIF is no reason to refuse a good picture
        return 1
    return given if 1 <= given <= 8 else 1


def profile_of(image: Image.Image) -> bytes | None:
    """Give the profile inside a file, or one made of what its EXIF or TIFF tags say; None where they say nothing.

    Raises:
        UnknownColours: numbers that no colours have.
    """
    if profile := image.info.get("icc_profile"):
        return bytes(profile)
    try:
        tags = image.getexif()
        inner, names = tags.get_ifd(IFD.Exif), tags.get_ifd(IFD.Interop)
        primaries = _numbers(tags, Base.WhitePoint, 2) + _numbers(tags, Base.PrimaryChromaticities, 6)
        gamma = _numbers(inner, Base.Gamma, 1)
        # DCF's word for Adobe RGB, and what some cameras write instead
        adobe = str(names.get(Interop.InteropIndex, "")).startswith("R03") or inner.get(Base.ColorSpace) == 2
    except Exception:  # damaged EXIF is no reason to refuse a good picture
        return None
    if adobe:
        return colours.adobe_rgb()
    if len(primaries) == 8 or gamma:
        return colours.from_numbers(primaries if len(primaries) == 8 else None, gamma[0] if gamma else None)
    return None


def _numbers(tags: Any, name: int, count: int) -> tuple[float, ...]:
    """Give a tag's numbers; none where it is not there or holds another count of them."""
    given = tags.get(name, ())
    given = given if isinstance(given, tuple | list) else (given,)
    return tuple(float(number) for number in given) if len(given) == count else ()
