"""An upload's bytes, whatever a phone or a program made of them, as an upright sRGB picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image

from ddpm_core.errors import InvalidInput
from ddpm_core.faces.colours import UnknownColours, to_srgb
from ddpm_core.faces.cost import estimate
from ddpm_core.faces.files import Animated, Header, PreviewOnly, kind_of, open_file

T = TypeVar("T")

ALLOWED = "JPEG, PNG, WebP, HEIC/HEIF, AVIF, BMP, GIF or TIFF"
MIN_SIDE = 16
MAX_PIXELS = 256_000_000
MAX_BYTES = 1_024_000_000
# Larger pictures are halved until just above this long side: enough for a face that fills a tenth of the picture.
KEEP_SIDE = 1280

Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own limit, for what else it opens; ours depends on the kind

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Picture:
    """An upload, upright and sRGB, perhaps reduced; coordinates elsewhere are in pixels of the full upright picture.

    Attributes:
        pixels: sRGB, upright, its long side possibly reduced.
        width: of the full upright picture, in pixels.
        height: of the full upright picture, in pixels.
        warnings: (code, message) of what could not be done.
    """

    pixels: Image.Image
    width: int
    height: int
    warnings: tuple[tuple[str, str], ...] = ()

    @property
    def scale(self) -> float:
        """Pixels kept for each pixel of the full picture, at most 1."""
        return self.pixels.width / self.width


def decode(data: bytes | bytearray | memoryview, *, max_bytes: int = MAX_BYTES) -> Picture:
    """Decode an upload: its first bytes say what it is, its header is checked before any pixel is decoded.

    The most memory that it takes beside `data` and a copy of it is `max_bytes`: of JPEGs that come in rows, as
    cameras' do, 256 million pixels need 0.1 GB; of other kinds the pixels allowed follow from what one needs (a
    JPEG of several scans and HEIF 6 bytes, PNG, TIFF, BMP and GIF 5, AVIF 12, WebP 16).

    Args:
        data: the bytes of one picture.
        max_bytes: of memory.

    Raises:
        InvalidInput: empty_image, not_an_image, truncated_image (pixels are missing), animated, too_many_pixels,
            too_small, preview_only or too_costly, field `image`.
    """
    data = bytes(data)
    if not data:
        raise _invalid("empty_image", "The image is empty.")
    kind = kind_of(data)
    if kind is None:
        raise _invalid("not_an_image", "The upload is not an image of a known kind.")
    estimate(data)  # refuses what costs far more than its pixels
    header = _decoding(lambda: open_file(kind, data))
    _check_size(header, max_bytes)
    width, height = header.width, header.height
    factor = 1
    while max(width, height) >= 2 * factor * KEEP_SIDE:
        factor *= 2
    raw = _decoding(lambda: header.read(factor))

    warnings: tuple[tuple[str, str], ...] = ()
    try:
        rgb = to_srgb(raw.pixels, raw.profile())
    except UnknownColours as unknown:
        rgb = raw.pixels.convert("RGB")
        message = f"The image's colours are told in a way that is not known here: {unknown}. They are taken as sRGB."
        warnings = (("unknown_colours", message),)
    if raw.orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[raw.orientation])
    if 5 <= raw.orientation <= 8:
        width, height = height, width
    return Picture(rgb, width, height, warnings)


def _check_size(header: Header, max_bytes: int) -> None:
    most = min(MAX_PIXELS, max_bytes // header.bytes_per_pixel)
    given = f"{header.width}x{header.height}"
    size = f"The image has {header.width} × {header.height} pixels"
    if header.width * header.height > most:
        allowed = f"at most {most} pixels"
        message = f"{size}, more than are decoded here."
        raise InvalidInput("too_many_pixels", message, field="image", given=given, allowed=allowed)
    if min(header.width, header.height) < MIN_SIDE:
        allowed = f"at least {MIN_SIDE} pixels on each side"
        raise InvalidInput("too_small", f"{size}, too few for a face.", field="image", given=given, allowed=allowed)


def _decoding(read: Callable[[], T]) -> T:
    """Do one step of decoding; decoders raise anything at all on damaged data, and none of it may be shown."""
    try:
        return read()
    except Animated:
        raise _invalid("animated", "The image is animated; send a single picture.") from None
    except PreviewOnly as found:
        message = f"The image itself is a camera's raw data; beside it there is only a preview of {found} pixels."
        raise _invalid("preview_only", message) from None
    except Image.DecompressionBombError:
        allowed = f"at most {MAX_PIXELS} pixels"
        message = "The image has more pixels than are decoded here."
        given = f"over {2 * MAX_PIXELS // 1_000_000} million pixels"  # Pillow does not say how many
        raise InvalidInput("too_many_pixels", message, field="image", given=given, allowed=allowed) from None
    except MemoryError:  # no damage: a helper process has less memory than the machine
        raise
    except Exception:
        raise _invalid("truncated_image", "The image is damaged or cut off: pixels are missing.") from None


def _invalid(code: str, message: str) -> InvalidInput:
    return InvalidInput(code, message, field="image", allowed=ALLOWED)
