"""The kinds of picture files: what their headers say, whether they are whole, and their pixels."""

from __future__ import annotations

from collections.abc import Callable

from ddpm_core.faces.files import bmff, jpeg, pillow, png, tiff, webp
from ddpm_core.faces.files.header import Animated, Header, PreviewOnly, Raw

__all__ = ["Animated", "Header", "PreviewOnly", "Raw", "kind_of", "open_file"]

_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}
_OPEN: dict[str, Callable[[bytes], Header]] = {
    "JPEG": jpeg.open_jpeg,
    "PNG": png.open_png,
    "WEBP": webp.open_webp,
    "HEIF": bmff.open_heif,
    "AVIF": bmff.open_avif,
    "TIFF": tiff.open_tiff,
    "GIF": lambda data: pillow.header(pillow.opened(data, "GIF")),
    "BMP": lambda data: pillow.header(pillow.opened(data, "BMP")),
}


def kind_of(data: bytes) -> str | None:
    """Name the kind that the first bytes announce."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        if data[8:12] in (b"avif", b"avis") or b"avif" in data[16:64]:
            return "AVIF"
        return "HEIF" if data[8:12] in _HEIF_BRANDS else None
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith((b"II*\0", b"MM\0*")):
        return "TIFF"
    return "BMP" if data.startswith(b"BM") else None


def open_file(kind: str, data: bytes) -> Header:
    """Read a file's header; no pixel is decoded, and nothing of a picture's size is allocated.

    Raises:
        PreviewOnly: and whatever a decoder raises at damaged data.
    """
    return _OPEN[kind](data)
