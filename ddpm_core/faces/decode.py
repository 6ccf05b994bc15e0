"""An upload's bytes, whatever a phone or a program made of them, as an upright sRGB picture."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageCms

from ddpm_core.errors import InvalidInput

pillow_heif.register_heif_opener()

T = TypeVar("T")

ALLOWED = "JPEG, PNG, WebP, HEIC/HEIF, AVIF, BMP, GIF or TIFF"
MIN_SIDE = 16
MAX_PIXELS = 64_000_000
# Larger pictures are halved until just above this long side: enough for a face that fills a tenth of the picture.
KEEP_SIDE = 1280

_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class Picture:
    """An upload, upright and sRGB, perhaps reduced; coordinates elsewhere are in pixels of the full upright picture.

    Attributes:
        pixels: sRGB, upright, its long side possibly reduced.
        width: of the full upright picture, in pixels.
        height: of the full upright picture, in pixels.
    """

    pixels: Image.Image
    width: int
    height: int

    @property
    def scale(self) -> float:
        """Pixels kept for each pixel of the full picture, at most 1."""
        return self.pixels.width / self.width


def decode(data: bytes | bytearray | memoryview, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode an upload: its first bytes say what it is, its header is checked before any pixel is decoded.

    Args:
        data: the bytes of one picture.
        max_pixels: the most pixels (width × height) that are decoded.

    Raises:
        InvalidInput: empty_image, not_an_image, truncated_image, animated, too_many_pixels or too_small,
            field ``image``.
    """
    data = bytes(data)
    if not data:
        raise _invalid("empty_image", "The image is empty.")
    kind = _kind(data)
    if kind is None:
        raise _invalid("not_an_image", "The upload is not an image of a known kind.")
    if kind == "WEBP":  # Pillow allocates a WebP's canvas when it is opened, so its size is read here
        _check_size(*_decoding(lambda: _webp_size(data)), max_pixels)

    image = _decoding(lambda: _open(data, kind))
    width, height = image.size
    _check_size(width, height, max_pixels)
    if kind in ("GIF", "PNG", "WEBP", "AVIF") and _decoding(lambda: getattr(image, "is_animated", False)):
        raise _invalid("animated", "The image is animated; send a single picture.")
    if kind == "JPEG":
        kept = KEEP_SIDE / max(width, height)  # the decoder halves while both sides stay above what is asked for
        _decoding(lambda: image.draft(None, (max(1, int(width * kept)), max(1, int(height * kept)))))
    _decoding(image.load)
    orientation = _orientation(image, data)

    rgb = _to_rgb(image)
    while max(rgb.size) >= 2 * KEEP_SIDE:
        rgb = rgb.reduce(2)
    if profile := image.info.get("icc_profile"):
        rgb = _to_srgb(rgb, profile)
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    if 5 <= orientation <= 8:
        width, height = height, width
    return Picture(rgb, width, height)


def _kind(data: bytes) -> str | None:
    """Name the Pillow format that the magic bytes announce."""
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


def _open(data: bytes, kind: str) -> Image.Image:
    with warnings.catch_warnings():  # our own limit is stricter and names the field
        warnings.simplefilter("ignore")
        # a JPEG with a second picture inside (depth, burst) is Pillow's MPO; its first picture is the photograph
        return Image.open(io.BytesIO(data), formats=("JPEG", "MPO") if kind == "JPEG" else (kind,))


def _webp_size(data: bytes) -> tuple[int, int]:
    """Read width and height from a WebP header (RFC 9649)."""
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise EOFError
    if chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise InvalidInput(
            "too_many_pixels",
            f"The image has {width} × {height} pixels, more than are decoded here.",
            field="image",
            given=f"{width}x{height}",
            allowed=f"at most {max_pixels} pixels",
        )
    if min(width, height) < MIN_SIDE:
        raise InvalidInput(
            "too_small",
            f"The image has {width} × {height} pixels, too few for a face.",
            field="image",
            given=f"{width}x{height}",
            allowed=f"at least {MIN_SIDE} pixels on each side",
        )


def _decoding(read: Callable[[], T]) -> T:
    """Do one step of decoding; decoders raise anything at all on damaged data, and none of it may be shown."""
    try:
        return read()
    except Image.DecompressionBombError:
        given, allowed = "over 178 million pixels", f"at most {MAX_PIXELS} pixels"  # Pillow does not say how many
        message = "The image has more pixels than are decoded here."
        raise InvalidInput("too_many_pixels", message, field="image", given=given, allowed=allowed) from None
    except Exception:
        raise _invalid("truncated_image", "The image is damaged or cut off and cannot be decoded.") from None


def _invalid(code: str, message: str) -> InvalidInput:
    return InvalidInput(code, message, field="image", allowed=ALLOWED)


def _orientation(image: Image.Image, data: bytes) -> int:
    """Give the EXIF orientation that is still to be applied, 1..8."""
    if image.format == "HEIF":
        # its decoder obeys the container's own turns and then hides the EXIF copy of them, which counts if it is alone
        start = data.find(b"ipco")
        properties = data[start : start + int.from_bytes(data[start - 4 : start], "big")]
        turned = b"irot" in properties or b"imir" in properties
        return 1 if turned else int(image.info.get("original_orientation") or 1)
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF is no reason to refuse a good picture
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Give 8-bit RGB from any mode; what is transparent shows white."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def _to_srgb(rgb: Image.Image, profile: bytes) -> Image.Image:
    """Give the colours that the profile means; where it is sRGB's, damaged or of no RGB, the picture as it is."""
    ramp = Image.linear_gradient("L").resize((32, 32))
    probe = Image.merge("RGB", (ramp, ramp.rotate(90), ramp.rotate(180)))
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
        moved = np.asarray(ImageChops.difference(transform.apply(probe), probe)).max()
        return transform.apply(rgb) if moved > 2 else rgb
    except Exception:  # a damaged profile is no reason to refuse a good picture
        return rgb


def _to_8_bit(levels: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale 16-bit grey (or a float picture in 0..1, 0..255 or 0..65535) to 0..255; Pillow itself would clip it."""
    values = np.nan_to_num(levels.astype(np.float32))
    top = 65535.0
    if levels.dtype.kind == "f":
        top = next((t for t in (1.0, 255.0) if values.max() <= t), top)
    scaled: NDArray[np.uint8] = np.clip(values * (255 / top) + 0.5, 0, 255).astype(np.uint8)
    return scaled
