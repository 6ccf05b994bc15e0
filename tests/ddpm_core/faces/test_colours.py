"""Colours come out as the file means them, whatever tells them; what cannot be understood is warned of."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from ddpm_core.faces import FaceFinder, align, decode
from ddpm_core.faces.colours import from_code_points

Array = NDArray[np.float64]

TO_P3 = np.array([[0.82246, 0.17754, 0], [0.03319, 0.96681, 0], [0.01708, 0.07240, 0.91052]])
TO_2020 = np.array([[0.62740, 0.32928, 0.04331], [0.06910, 0.91954, 0.01136], [0.01639, 0.08801, 0.89560]])
TO_ADOBE = np.array([[0.71513, 0.28487, 0], [0, 1, 0], [0, 0.04117, 0.95883]])
SAME = np.eye(3)


def srgb(light: Array) -> Array:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def bt2020(light: Array) -> Array:
    return np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099)


def pq(light: Array) -> Array:
    power = (light * 203 / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(light: Array) -> Array:
    scene = (light * 0.203) ** (1 / 1.2)
    bright = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


def patches() -> NDArray[np.uint8]:
    """Eight colours of skin, hair, lips and cloth, 16 pixels each, mid tones all."""
    colours = [(190, 150, 130), (90, 60, 50), (160, 80, 80), (60, 90, 120), (120, 120, 120), (70, 110, 70)]
    return np.repeat(np.repeat(np.array([colours], np.uint8), 16, axis=0), 16, axis=1)


def encoded(curve: Callable[[Array], Array], matrix: Array = SAME) -> Image.Image:
    """The patches in other primaries and with another curve."""
    value = patches() / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4) @ matrix.T
    return Image.fromarray(np.rint(255 * curve(light.clip(0, 1))).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(image: Image.Image, **chunks: bytes) -> bytes:
    """A PNG with more chunks before its pixels."""
    whole = saved(image, "PNG")
    extra = b""
    for name, body in chunks.items():
        named = name.encode() + body
        extra += struct.pack(">I", len(body)) + named + struct.pack(">I", zlib.crc32(named))
    return whole[:33] + extra + whole[33:]


def heif(image: Image.Image, primaries: int, transfer: int) -> bytes:
    return saved(
        image,
        "HEIF",
        quality=-1,
        color_primaries=primaries,
        transfer_characteristics=transfer,
        matrix_coefficients=0,
        full_range_flag=1,
    )


def avif(image: Image.Image, primaries: int, transfer: int) -> bytes:
    """Pillow writes sRGB's code points; others are put in their place."""
    whole = saved(image, "AVIF", quality=100, subsampling="4:4:4")
    at = whole.index(b"nclx") + 4
    return whole[:at] + struct.pack(">HH", primaries, transfer) + whole[at + 4 :]


def off(data: bytes) -> int:
    """The most that any colour is off, in levels."""
    picture = decode(data)
    assert picture.warnings == ()
    return int(np.abs(np.asarray(picture.pixels, int) - patches()).max())


def chromaticities(*xy: float) -> bytes:
    return struct.pack(">8I", *(round(100_000 * each) for each in xy))


P3_XY = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
FILES = {
    "HEIF, Display P3": heif(encoded(srgb, TO_P3), 12, 13),
    "HEIF, BT.2020": heif(encoded(bt2020, TO_2020), 9, 14),
    "HEIF, BT.709's own curve shown as sRGB's": heif(encoded(srgb), 1, 1),
    "HEIF, unspecified": heif(encoded(srgb), 2, 2),
    "AVIF, Display P3": avif(encoded(srgb, TO_P3), 12, 13),
    "AVIF, BT.2020": avif(encoded(bt2020, TO_2020), 9, 14),
    "PNG, cICP": png(encoded(srgb, TO_P3), cICP=bytes((12, 13, 0, 1))),
    "PNG, cICP before sRGB": png(encoded(srgb, TO_P3), cICP=bytes((12, 13, 0, 1)), sRGB=b"\0"),
    "PNG, linear light": png(encoded(lambda light: light), gAMA=struct.pack(">I", 100_000)),
    "PNG, gamma 1.8": png(encoded(lambda light: light ** (1 / 1.8)), gAMA=struct.pack(">I", 55_556)),
    "PNG, gamma and primaries": png(
        encoded(lambda light: light ** (1 / 2.2), TO_P3), gAMA=struct.pack(">I", 45_455), cHRM=chromaticities(*P3_XY)
    ),
    "PNG, primaries alone": png(encoded(srgb, TO_P3), cHRM=chromaticities(*P3_XY)),
    "PNG, sRGB before gAMA": png(encoded(srgb), sRGB=b"\0", gAMA=struct.pack(">I", 100_000)),
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_colours_are_right_within_three_levels(data: bytes) -> None:
    assert off(data) <= 3


def test_so_are_greys() -> None:
    light = [encoded(curve).convert("RGB").getchannel("R") for curve in (lambda light: light, srgb)]
    shown = decode(png(light[0], gAMA=struct.pack(">I", 100_000))).pixels
    assert np.abs(np.asarray(shown, int) - np.asarray(light[1], int)[..., None]).max() <= 3


def test_a_camera_says_adobe_rgb_by_a_word_of_exif() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    held = encoded(lambda light: light ** (256 / 563), TO_ADOBE)
    assert off(saved(held, "JPEG", quality=100, subsampling=0, exif=exif.tobytes())) <= 3


def test_a_tiff_says_its_primaries_by_tags() -> None:
    tags = {318: P3_XY[:2], 319: P3_XY[2:]}
    assert off(saved(encoded(srgb, TO_P3), "TIFF", tiffinfo=tags)) <= 3


HDR = {
    "PNG, PQ": png(encoded(pq, TO_2020), cICP=bytes((9, 16, 0, 1))),
    "PNG, HLG": png(encoded(hlg, TO_2020), cICP=bytes((9, 18, 0, 1))),
    "HEIF, PQ": heif(encoded(pq, TO_2020), 9, 16),
    "AVIF, HLG of P3": avif(encoded(hlg, TO_P3), 12, 18),
}


@pytest.mark.parametrize("data", HDR.values(), ids=HDR)
def test_hdr_is_shown_as_on_paper(data: bytes) -> None:
    assert off(data) <= 12


@pytest.mark.parametrize("code", [16, 18])
def test_what_is_brighter_than_white_keeps_its_drawing(code: int) -> None:
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 256).astype(np.uint8), (16, 1))).convert("RGB")
    shown = np.asarray(decode(png(ramp, cICP=bytes((9, code, 0, 1)))).pixels, int)[0, :, 1]
    assert (np.diff(shown) >= 0).all()
    white = 149 if code == 16 else 191  # 203 cd/m²
    bright = 192 if code == 16 else 255  # 1,000 cd/m²
    assert 230 <= shown[white] <= 245 < shown[bright]


def test_a_profile_that_says_pq_by_its_tag_is_hdr() -> None:
    """As phones and browsers write them; the profile's own curves would show it dark."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    at = 132 + 12 * (int.from_bytes(made[128:132], "big") - 1)  # in place of its last tag
    made[at : at + 12] = struct.pack(">4sII", b"cicp", len(made), 12)
    made += b"cicp\0\0\0\0" + bytes((9, 16, 0, 1))
    made[:4] = struct.pack(">I", len(made))
    assert off(saved(encoded(pq, TO_2020), "PNG", icc_profile=bytes(made))) <= 12


UNKNOWN = {
    "a transfer that nobody knows": png(encoded(srgb), cICP=bytes((9, 99, 0, 1))),
    "primaries that nobody knows": avif(encoded(srgb), 77, 13),
    "video levels": png(encoded(srgb), cICP=bytes((1, 13, 0, 0))),
    "a damaged profile": saved(encoded(srgb), "PNG", icc_profile=b"no profile"),
    "a profile of another kind of picture": saved(
        encoded(srgb), "PNG", icc_profile=from_code_points(12, 13).replace(b"RGB ", b"CMYK", 1)
    ),
    "primaries in one line": png(encoded(srgb), cHRM=chromaticities(*(0.3, 0.3) * 4)),
    "an endless gamma": png(encoded(srgb), gAMA=struct.pack(">I", 1)),
}


@pytest.mark.parametrize("data", UNKNOWN.values(), ids=UNKNOWN)
def test_what_cannot_be_understood_is_warned_of_and_left_as_it_is(data: bytes) -> None:
    picture = decode(data)
    assert [code for code, _ in picture.warnings] == ["unknown_colours"]
    assert np.abs(np.asarray(picture.pixels.convert("L"), int) - encoded(srgb).convert("L")).max() <= 3


def test_the_warning_is_among_those_of_the_answer() -> None:
    target = align(decode(UNKNOWN["a damaged profile"]), 32, FaceFinder("any"), align="center")
    assert [code for code, _ in target.warnings] == ["unknown_colours"]
