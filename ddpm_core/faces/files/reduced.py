"""Large pictures made small, strip by strip: beside the decoder's own, no second picture of full size is in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Rows = Callable[[int, int], Image.Image]
"""Gives the rows from the first up to, and without, the second."""

_STRIP = 256
_PLAIN = ("RGB", "L", "CMYK")


def reduced(rows: Rows, size: tuple[int, int], factor: int, brightest: float = 65535) -> Image.Image:
    """Divide both sides of a picture by `factor`, as 8-bit RGB, L or CMYK.

    Args:
        rows: of the picture, in any mode.
        size: its width and height.
        factor: a power of two.
        brightest: value of white in a picture of more than 8 bits.
    """
    height = size[1]
    small: Image.Image | None = None
    for top in range(0, height, _STRIP * factor):
        strip = _plain(rows(top, min(top + _STRIP * factor, height)), brightest).reduce(factor)
        if small is None:
            small = Image.new(strip.mode, (strip.width, -(-height // factor)))
        small.paste(strip, (0, top // factor))
    assert small is not None
    return small


def of_image(image: Image.Image, factor: int) -> Image.Image:
    """Divide both sides of a picture in memory by `factor`."""
    if factor == 1 and image.mode in _PLAIN and not image.has_transparency_data:
        return image
    brightest = 65535.0
    if image.mode == "F":  # floats are of 0..1, 0..255 or 0..65535
        most: Any = image.getextrema()[1]
        brightest = next((top for top in (1.0, 255.0) if most <= top), brightest)
    return reduced(lambda top, bottom: image.crop((0, top, image.width, bottom)), image.size, factor, brightest)


def _plain(image: Image.Image, brightest: float) -> Image.Image:
    """Give 8-bit RGB, L or CMYK from any mode; what is transparent shows white."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bit(np.asarray(image), brightest))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    if image.mode in _PLAIN:
        return image
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(lab, srgb, "LAB", "RGB").apply(image)
    return image.convert("L" if image.mode == "1" else "RGB")


def _to_8_bit(levels: NDArray[Any], brightest: float) -> NDArray[np.uint8]:
    """Scale to 0..255; Pillow itself would clip."""
    values = np.nan_to_num(levels.astype(np.float32))
    scaled: NDArray[np.uint8] = np.clip(values * (255 / brightest) + 0.5, 0, 255).astype(np.uint8)
    return scaled
