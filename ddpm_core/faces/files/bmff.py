"""HEIF and AVIF files: boxes of ISO's base media format (ISO/IEC 14496-12, 23008-12)."""

from __future__ import annotations

import struct
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

import pillow_heif
from PIL import Image

from ddpm_core.faces import colours
from ddpm_core.faces.files import pillow
from ddpm_core.faces.files.header import Header, Raw
from ddpm_core.faces.files.holes import refuse_holes
from ddpm_core.faces.files.reduced import reduced

pillow_heif.register_heif_opener()  # Pillow opens and writes HEIF as well


def open_heif(data: bytes) -> Header:
    """Read the header."""
    image = _primary(data)
    width, height = image.size
    return Header(width, height, 6, lambda factor: _read(data, image, factor))


def open_avif(data: bytes) -> Header:
    """Read the header; Pillow decodes, but does not tell the code points of the colours."""
    header = pillow.header(pillow.opened(data, "AVIF"), 12)

    def read(factor: int) -> Raw:
        try:
            image = _primary(data)
        except Exception as error:  # it refuses code points that it does not know
            return replace(header.read(factor), profile=partial(_unknown, str(error)))
        refuse_holes(_coded(data, image))
        return replace(header.read(factor), profile=lambda: _profile(image))

    return replace(header, read=read)


def _read(data: bytes, image: Any, factor: int) -> Raw:
    refuse_holes(_coded(data, image))
    # The decoder obeys the container's own turns; EXIF's copy of them counts where there are none.
    turned = any(what in ("irot", "imir") for what, *_ in _transformations(image))
    orientation = 1 if turned else pillow_heif.set_orientation(dict(image.info)) or 1
    pixels: Any = memoryview(image.data)
    mode, stride = image.mode, image.stride

    def rows(top: int, bottom: int) -> Image.Image:
        strip = pixels[top * stride : bottom * stride]
        return Image.frombuffer(mode, (image.size[0], bottom - top), strip, "raw", mode, stride, 1)

    return Raw(reduced(rows, image.size, factor), orientation, lambda: _profile(image))


def _primary(data: bytes) -> Any:
    """Give the picture that is to be shown, not decoded yet."""
    held = pillow_heif.open_heif(data)
    return held[held.primary_index]


def _profile(image: Any) -> bytes | None:
    """Give the profile inside, or that of the box `nclx`."""
    if profile := image.info.get("icc_profile"):
        return bytes(profile)
    if codes := image.info.get("nclx_profile"):
        return colours.from_code_points(codes["color_primaries"], codes["transfer_characteristics"])
    return None


def _unknown(why: str) -> NoReturn:
    raise colours.UnknownColours(why)


def _coded(data: bytes, image: Any) -> bytes:
    """Give what is compressed: the media data, without the metadata that may lie among it."""
    media, at = b"", 0
    while at + 16 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        end = at + size if size >= 8 else len(data)
        if name == b"mdat":
            media += data[at + 8 : end]
        at = end
    told = [image.info["exif"], image.info.get("xmp"), *(block["data"] for block in image.info["metadata"])]
    for block in filter(None, told):
        media = media.replace(block, b"")
    return media


def _transformations(image: Any) -> tuple[Any, ...]:
    """Give what libheif has done to the picture, by a private name; a pillow-heif without it has done nothing."""
    return tuple(getattr(getattr(image, "_c_image", None), "transformations", ()))
