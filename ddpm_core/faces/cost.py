"""What an upload will cost to decode, told by its headers alone: nothing is decoded here.

A picture of few pixels can be made to cost minutes: by scans, strips, tiles, chunks or metadata without end. What is
far beyond all that cameras and programs write is refused; the rest gets an estimate, by which it is given its turn and
its limits.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ddpm_core.errors import InvalidInput

_SECONDS_PER_SCAN = 0.0015  # of a megapixel of a progressive JPEG
# Cameras and optimisers write up to about 20 scans.
MAX_SCANS = 100
MAX_SCANNED = 2_000_000_000  # pixels × scans
MAX_METADATA = 16 * 2**20  # phones keep a second photograph or a depth map in theirs
MAX_PROFILE = 4 * 2**20
MAX_PARTS = 20_000  # strips, tiles, chunks or segments; each costs a step in Python
MAX_ITEMS = 1_024  # of a HEIC or AVIF: 64 megapixels in tiles of 512 × 512 are 256
MAX_DEEP_PIXELS = 16_000_000  # of 32 bits or more in a sample
_MOST_PIXELS = 256_000_000

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_STRIPS, _TILES = 273, 324  # where a TIFF's strips or tiles lie
_LONG_LISTS = {_STRIPS, 279, _TILES, 325}


@dataclass(frozen=True)
class Cost:
    """What decoding is expected to take.

    Attributes:
        pixels: of the picture as its header has them.
        seconds: of one core.
    """

    pixels: int
    seconds: float


def estimate(data: bytes) -> Cost:
    """Estimate what an upload costs. What is damaged or unknown costs next to nothing: its decoder will say so.

    Args:
        data: the bytes of one picture.

    Raises:
        InvalidInput: too_costly, field `image`.
    """
    kind = next((each for each in _KINDS if each[0].match(data)), None)
    if kind is None:
        return Cost(0, 0.0)
    _, read, seconds = kind
    try:
        pixels, scans = read(data)
    except (struct.error, IndexError, KeyError):
        return Cost(0, 0.0)
    # A header may claim anything; how many pixels are decoded is the decoder's own limit.
    pixels = min(pixels, _MOST_PIXELS)
    return Cost(pixels, pixels / 1e6 * (seconds + (_SECONDS_PER_SCAN * scans if scans > 1 else 0)))


def too_costly(what: str, given: object = None, allowed: str | None = None) -> InvalidInput:
    """The refusal of a picture that takes more work than its size explains."""
    return InvalidInput("too_costly", f"The image {what}.", field="image", given=given, allowed=allowed)


def _most(what: str, given: int, most: int) -> None:
    if given > most:
        raise too_costly(f"has {given} {what}, more than are decoded here", given, f"at most {most} {what}")


def _jpeg(data: bytes) -> tuple[int, int]:
    """Walk the markers up to the end of the first picture."""
    at, pixels, scans, metadata, profile, parts = 2, 0, 0, 0, 0, 0
    while found := _MARKER.search(data, at):
        marker, at, parts = data[found.start() + 1], found.end(), parts + 1
        _most("segments", parts, MAX_PARTS)
        if marker == 0xD9:
            break
        if marker in (0x01, 0xD8):
            continue
        length = min(int.from_bytes(data[at : at + 2], "big"), len(data) - at)
        if marker in (0xC0, 0xC1, 0xC2, 0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)):
            height, width = struct.unpack_from(">HH", data, at + 3)
            pixels = max(pixels, width * height)
        elif marker == 0xDA:
            scans += 1
            _most("scans", scans, MAX_SCANS)
            _most("pixels in all its scans", scans * pixels, MAX_SCANNED)
        elif marker == 0xFE or 0xE0 <= marker <= 0xEF:
            metadata += length
            profile += length if marker == 0xE2 and data[at + 2 : at + 13] == b"ICC_PROFILE" else 0
            _metadata(metadata, profile)
        at += length
    return pixels, scans


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    metadata = 0
    for parts, (name, length) in enumerate(_chunks(data, 8, ">I4s", trailer=4)):
        _most("chunks", parts, MAX_PARTS)
        metadata += 0 if name == b"IDAT" else length
        _metadata(metadata, length if name == b"iCCP" else 0)
        if name == b"IEND":
            break
    return width * height, 1


def _webp(data: bytes) -> tuple[int, int]:
    width = height = metadata = 0
    for parts, (name, length) in enumerate(_chunks(data, 12, "<4sI", trailer=0)):
        _most("chunks", parts, MAX_PARTS)
        if name in (b"ICCP", b"EXIF", b"XMP "):
            metadata += length
            _metadata(metadata, length if name == b"ICCP" else 0)
    if data[12:16] == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return width * height, 1


def _chunks(data: bytes, at: int, head: str, *, trailer: int) -> Iterator[tuple[bytes, int]]:
    """Give name and length of each chunk of a PNG or a RIFF."""
    while at + 8 <= len(data):
        first, second = struct.unpack_from(head, data, at)
        name, length = (first, second) if isinstance(first, bytes) else (second, first)
        yield name, min(length, len(data) - at - 8)  # what a damaged file only claims costs nothing
        at += 8 + length + trailer
        at += length % 2 if not trailer else 0  # a RIFF's chunks begin at even places


def _heif(data: bytes) -> tuple[int, int]:
    """Take the largest size that any item has, and count the items."""
    _most("items", data.count(b"infe", 0, MAX_METADATA), MAX_ITEMS)
    pixels = 0
    for items, found in enumerate(re.finditer(rb"ispe", data[:MAX_METADATA])):
        _most("items", items, MAX_ITEMS)
        width, height = struct.unpack_from(">II", data, found.end() + 4)
        pixels = max(pixels, width * height)
    if profile := data.find(b"colrprof", 0, MAX_METADATA) + 1:
        _metadata(0, min(int.from_bytes(data[profile - 5 : profile - 1], "big"), len(data)))
    return pixels, 1


def _gif(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width * height, 1


def _bmp(data: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return abs(width * height), 1


def _tiff(data: bytes) -> tuple[int, int]:
    """Read the first directory."""
    order = "<" if data.startswith(b"II") else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    _most("tags", count, MAX_ITEMS)
    tags: dict[int, int] = {}
    metadata = 0
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(order + "HHI", data, entry)
        size = _TIFF_SIZES.get(kind, 1)
        values = min(values, len(data) // size)
        place = entry + 8
        if values * size > 4:
            (place,) = struct.unpack_from(order + "I", data, entry + 8)
        if tag in (_STRIPS, _TILES):
            _most("strips or tiles", values, MAX_PARTS)
        if tag not in _LONG_LISTS:
            metadata += values * size
            _metadata(metadata, values if tag == 34675 else 0)
        if size in (1, 2, 4) and values:
            tags[tag] = int.from_bytes(data[place : place + size], "little" if order == "<" else "big")
    width, height = tags[256], tags[257]
    bits = tags.get(258, 1)
    if bits > 16:
        _most("pixels of more than 16 bits", width * height, MAX_DEEP_PIXELS)
    if (rows := tags.get(278, height)) and tags.get(322) is None:
        _most("strips or tiles", -(-height // rows), MAX_PARTS)
    if (across := tags.get(322)) and (down := tags.get(323)):
        _most("strips or tiles", -(-width // across) * -(-height // down), MAX_PARTS)
    return width * height * (3 if bits > 16 else 1), 1


def _metadata(size: int, profile: int) -> None:
    _most("bytes of metadata", size, MAX_METADATA)
    _most("bytes of colour profile", profile, MAX_PROFILE)


# How a kind begins, what reads its header, and seconds of one core for a megapixel: measured on a Zen 4 core.
_KINDS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], tuple[int, int]], float], ...] = (
    (re.compile(rb"\xff\xd8\xff"), _jpeg, 0.008),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _png, 0.03),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp, 0.035),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), _heif, 0.035),
    (re.compile(rb"....ftyp", re.DOTALL), _heif, 0.08),
    (re.compile(rb"GIF8[79]a"), _gif, 0.015),
    (re.compile(rb"II\*\0|MM\0\*"), _tiff, 0.025),
    (re.compile(rb"BM"), _bmp, 0.01),
)
