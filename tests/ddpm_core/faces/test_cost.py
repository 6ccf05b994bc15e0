"""What costs far more than its size explains is refused by its headers; what cameras and programs write is not."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from ddpm_core.errors import InvalidInput
from ddpm_core.faces.cost import estimate


def saved(kind: str, size: tuple[int, int] = (400, 300), mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def jpeg_of_scans(scans: int, side: int = 8000) -> bytes:
    frame = segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\x01\x11\0")
    return b"\xff\xd8" + frame + (segment(0xDA, b"\x01\x01\0\0\0\0") + bytes(20)) * scans + b"\xff\xd9"


def jpeg_with(*segments: bytes) -> bytes:
    file = saved("JPEG")
    return file[:2] + b"".join(segments) + file[2:]


def png_with(extra: bytes) -> bytes:
    file = saved("PNG")
    return file[:33] + extra + file[33:]


def tiff(*entries: tuple[int, int, int, int]) -> bytes:
    """A directory of (tag, type, count, value) in a file that is long enough for all that they claim."""
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(2**20)


SIDE = ((256, 3, 1, 8000), (257, 3, 1, 8000))
BOMBS: dict[str, Callable[[], bytes]] = {
    "a JPEG of 3,200 scans": lambda: jpeg_of_scans(3200),
    "a small JPEG of 200 scans": lambda: jpeg_of_scans(200, 64),
    "a JPEG of 40 scans of 64 megapixels": lambda: jpeg_of_scans(40),
    "a JPEG with 6 MiB of colour profile": lambda: jpeg_with(*[segment(0xE2, b"ICC_PROFILE\0" + bytes(65000))] * 100),
    "a JPEG with 20 MiB of remarks": lambda: jpeg_with(*[segment(0xFE, bytes(65000))] * 330),
    "a JPEG of 50,000 empty remarks": lambda: jpeg_with(segment(0xFE, b"") * 50_000),
    "a PNG of 50,000 chunks": lambda: png_with(chunk(b"teXt", b"") * 50_000),
    "a PNG with 20 MiB of text": lambda: png_with(chunk(b"zTXt", bytes(20 * 2**20))),
    "a PNG with 5 MiB of packed profile": lambda: png_with(chunk(b"iCCP", bytes(5 * 2**20))),
    "a WebP of 50,000 chunks": lambda: saved("WEBP") + (b"junk" + bytes(4)) * 50_000,
    "a TIFF of floats": lambda: saved("TIFF", (5000, 5000), "F", compression="tiff_adobe_deflate"),
    "a TIFF of a million strips": lambda: tiff(*SIDE, (273, 4, 200_000, 8), (278, 3, 1, 1)),
    "a TIFF of tiles of one pixel": lambda: tiff(*SIDE, (322, 3, 1, 1), (323, 3, 1, 1)),
    "a TIFF of many tags": lambda: tiff(*SIDE, *[(700, 1, 1, 0)] * 5000),
    "a HEIC of 5,000 items": lambda: b"\0\0\0\x18ftypheic" + bytes(12) + b"\0\0\0\x15infe\2\0\0\0" * 5000,
    "a HEIC of 5,000 sizes": lambda: b"\0\0\0\x18ftypheic" + bytes(12) + (b"ispe" + bytes(12)) * 5000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_told_by_its_headers(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        estimate(BOMBS[name]())
    assert (caught.value.code, caught.value.field) == ("too_costly", "image")
    assert caught.value.allowed is not None
    assert caught.value.allowed.startswith("at most ")


HONEST: dict[str, bytes] = {
    "JPEG": saved("JPEG"),
    "progressive JPEG": saved("JPEG", progressive=True),
    "JPEG with a thumbnail and a profile": jpeg_with(segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(3000))),
    "PNG": saved("PNG"),
    "PNG of 16 bits": saved("PNG", mode="I;16"),
    "WebP": saved("WEBP"),
    "lossless WebP": saved("WEBP", lossless=True),
    "WebP with metadata": saved("WEBP", exif=b"Exif\0\0" + bytes(100)),
    "HEIC": saved("HEIF"),
    "AVIF": saved("AVIF"),
    "GIF": saved("GIF"),
    "TIFF": saved("TIFF"),
    "packed TIFF": saved("TIFF", compression="tiff_lzw"),
    "BMP": saved("BMP"),
}


@pytest.mark.parametrize("name", HONEST)
def test_what_programs_write_is_estimated_by_its_pixels(name: str) -> None:
    cost = estimate(HONEST[name])
    assert cost.pixels == 400 * 300
    assert 0 < cost.seconds < 0.1


def test_scans_cost() -> None:
    assert estimate(jpeg_of_scans(20)).seconds > 2 * estimate(jpeg_of_scans(1)).seconds


@pytest.mark.parametrize("name", HONEST)
def test_what_is_cut_off_is_left_to_its_decoder(name: str) -> None:
    file = HONEST[name]
    for length in (*range(12), 20, 30, 50, len(file) // 2):
        assert estimate(file[:length]).pixels <= 400 * 300


def test_what_is_no_picture_costs_nothing() -> None:
    assert estimate(b"%PDF-1.4").seconds == estimate(b"").seconds == 0
