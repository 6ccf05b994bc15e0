"""Uploads as phones and programs make them come out upright, RGB and unsquashed, or are refused with the reason."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from ddpm_core.errors import InvalidInput
from ddpm_core.faces import decode

TURNED_BY = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def scene(width: int = 96, height: int = 64) -> Image.Image:
    """A picture whose four corners differ: red, green, blue, grey."""
    image = Image.new("RGB", (width, height), (128, 128, 128))
    image.paste((220, 30, 30), (0, 0, width // 2, height // 2))
    image.paste((30, 200, 30), (width // 2, 0, width, height // 2))
    image.paste((30, 30, 220), (0, height // 2, width // 2, height))
    return image


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def difference(a: Image.Image, b: Image.Image) -> float:
    assert a.size == b.size
    return float(np.abs(np.asarray(a, int) - np.asarray(b, int)).mean())


def refusal(data: bytes, **options: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        decode(data, **options)
    assert caught.value.field == "image"
    assert caught.value.allowed
    assert caught.value.__cause__ is None
    return caught.value


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 95}),
        ("HEIF", {"quality": 95}),
        ("AVIF", {"quality": 95}),
        ("BMP", {}),
        ("GIF", {}),
        ("TIFF", {}),
    ],
)
def test_every_kind_is_known_by_its_bytes(kind: str, options: dict[str, Any]) -> None:
    picture = decode(saved(scene(), kind, **options))
    assert (picture.width, picture.height, picture.scale) == (96, 64, 1)
    assert picture.pixels.mode == "RGB"
    assert difference(picture.pixels, scene()) < 4


@pytest.mark.parametrize("container", [bytes, bytearray, memoryview])
def test_bytes_arrive_in_any_container(container: Any) -> None:
    assert decode(container(saved(scene(), "PNG"))).pixels.size == (96, 64)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_camera_may_be_held_any_way(kind: str, orientation: int) -> None:
    turn = TURNED_BY[orientation]
    held = scene() if turn is None else scene().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decode(saved(held, kind, exif=exif.tobytes(), quality=95))
    assert (picture.width, picture.height) == (96, 64)
    assert difference(picture.pixels, scene()) < 4


def test_a_heic_turned_by_its_container_is_not_turned_again() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    by_container = saved(scene().rotate(90, expand=True), "HEIF", exif=exif.tobytes(), quality=95)
    by_exif_alone = saved(scene().rotate(90, expand=True), "HEIF", exif=exif, quality=95)
    assert b"irot" in by_container
    assert b"irot" not in by_exif_alone
    for data in (by_container, by_exif_alone):
        assert difference(decode(data).pixels, scene()) < 4


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decode(saved(scene(), "PNG", exif=exif))
    assert (picture.width, picture.height) == picture.pixels.size == (96, 64)


def display_p3(image: Image.Image) -> Image.Image:
    """The same colours in Display P3: linear light, the primaries' matrix (CSS Color 4), and sRGB's curve again."""
    value = np.asarray(image) / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    light = light @ np.array([[0.82246, 0.17754, 0], [0.03319, 0.96681, 0], [0.01708, 0.07240, 0.91052]]).T
    value = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return Image.fromarray(np.rint(value * 255).astype(np.uint8))


def profile(**primaries: tuple[float, float, float]) -> bytes:
    """Make the profile of sRGB, or with other primaries, such as rXYZ."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for i in range(int.from_bytes(made[128:132], "big")):
        tag, start, _ = struct.unpack_from(">4sII", made, 132 + 12 * i)
        if tag.decode() in primaries:
            struct.pack_into(">3i", made, start + 8, *(round(x * 65536) for x in primaries[tag.decode()]))
    return bytes(made)


P3 = profile(rXYZ=(0.51512, 0.24120, -0.00105), gXYZ=(0.29198, 0.69225, 0.04189), bXYZ=(0.15710, 0.06657, 0.78407))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
        ("JPEG", {"quality": 100, "subsampling": 0}),
        ("HEIF", {"quality": -1}),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
    ],
)
def test_colours_are_those_that_the_profile_means(kind: str, options: dict[str, Any]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    muted = Image.blend(scene(), Image.new("RGB", (96, 64), (200, 150, 130)), 0.5)
    held = display_p3(muted).transpose(TURNED_BY[6])
    pixels = decode(saved(held, kind, icc_profile=P3, exif=exif.tobytes(), **options)).pixels
    for corner in ((16, 16), (80, 16), (16, 48), (80, 48)):
        shown, meant = (np.asarray(image.getpixel(corner), int) for image in (pixels, muted))
        assert np.abs(shown - meant).max() <= 2


def test_colours_of_a_transparent_and_of_a_large_picture_too() -> None:
    clear = display_p3(scene()).convert("RGBA")
    assert difference(decode(saved(clear, "PNG", icc_profile=P3)).pixels, scene()) < 1
    large = decode(saved(display_p3(scene()).resize((3840, 2560), 0), "PNG", icc_profile=P3)).pixels
    assert difference(large, scene().resize((1920, 1280), 0)) < 1


@pytest.mark.parametrize(
    "unfit", [b"no profile", P3[:300], P3.replace(b"RGB ", b"GRAY", 1), P3.replace(b"RGB ", b"CMYK", 1)]
)
def test_a_profile_that_is_srgbs_or_damaged_or_does_not_fit_changes_nothing(unfit: bytes) -> None:
    for data in (unfit, profile()):
        assert difference(decode(saved(scene(), "PNG", icc_profile=data)).pixels, scene()) == 0


def test_damaged_exif_is_no_reason_to_refuse() -> None:
    assert decode(saved(scene(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")).pixels.size == (96, 64)


def test_what_is_transparent_is_white() -> None:
    image = scene().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 48, 32))
    pixels = np.asarray(decode(saved(image, "PNG")).pixels)
    assert (pixels[:32, :48] == 255).all()
    assert (pixels[40, 10] == (30, 30, 220)).all()


def test_half_transparent_grey_is_half_white() -> None:
    pixels = np.asarray(decode(saved(Image.new("LA", (32, 32), (0, 128)), "PNG")).pixels)
    assert (abs(pixels.astype(int) - 127) <= 1).all()


def test_palette_with_a_transparent_entry() -> None:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(0, (0, 0, 16, 32))
    pixels = np.asarray(decode(saved(image, "PNG", transparency=0)).pixels)
    assert (pixels[0, 0] == 255).all()
    assert (pixels[0, 31] == (200, 100, 50)).all()


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette_pictures(mode: str) -> None:
    picture = decode(saved(scene().convert(mode), "PNG"))
    assert difference(picture.pixels, scene().convert(mode).convert("RGB")) == 0


def test_cmyk() -> None:
    assert difference(decode(saved(scene().convert("CMYK"), "JPEG", quality=95)).pixels, scene()) < 4


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (32, 1))
    pixels = np.asarray(decode(saved(Image.fromarray(ramp), "PNG")).pixels).astype(int)
    assert np.abs(pixels[0, :, 0] - np.arange(256)).max() <= 1


def test_sixteen_bit_colour() -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    row = b"\0" + struct.pack(">HHH", 0x1000, 0x8000, 0xF000) * 32
    header = struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 32)) + chunk(b"IEND", b"")
    assert np.abs(np.asarray(decode(data).pixels).astype(int) - (0x10, 0x80, 0xF0)).max() <= 1


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_float_pictures(top: float) -> None:
    ramp = np.tile(np.linspace(0, top, 256, dtype=np.float32), (32, 1))
    pixels = np.asarray(decode(saved(Image.fromarray(ramp), "TIFF")).pixels).astype(int)
    assert np.abs(pixels[0, :, 0] - np.arange(256)).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_picture_is_reduced_and_keeps_its_own_measures(kind: str) -> None:
    large = scene().resize((4000, 3000))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = decode(saved(large, kind, exif=exif))
    assert (picture.width, picture.height) == (3000, 4000)
    assert picture.pixels.size == (1500, 2000)
    assert picture.scale == 0.5


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_refused(kind: str) -> None:
    data = saved(scene(), kind, save_all=True, append_images=[Image.new("RGB", (96, 64), "white")], lossless=True)
    with pytest.raises(InvalidInput, match="single picture") as caught:
        decode(data)
    assert caught.value.code == "animated"


def test_a_photograph_with_a_second_picture_inside_is_a_photograph() -> None:
    data = saved(scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (96, 64), "white")], quality=95)
    picture = decode(data)
    assert difference(picture.pixels, scene()) < 4


@pytest.mark.parametrize("size", [(16, 20481), (20481, 16)])
def test_a_very_thin_photograph_is_decoded(size: tuple[int, int]) -> None:
    picture = decode(saved(Image.new("RGB", size), "JPEG"))
    assert (picture.width, picture.height) == size


def test_empty() -> None:
    assert refusal(b"").code == "empty_image"


@pytest.mark.parametrize(
    "data", [b"hello", b"\0" * 5000, b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"\xff\xd8"]
)
def test_not_an_image(data: bytes) -> None:
    assert refusal(data).code == "not_an_image"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "HEIF", "AVIF", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("part", [0.05, 0.5, 0.9])
def test_cut_off(kind: str, part: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8))
    data = saved(noise, kind)
    assert refusal(data[: max(16, int(len(data) * part))]).code == "truncated_image"


def test_no_name_or_declared_type_matters_but_a_wrong_body_does() -> None:
    assert refusal(b"\x89PNG\r\n\x1a\n" + b"no png at all" * 20).code == "truncated_image"


MEMORY = {"JPEG": 1, "PNG": 5, "GIF": 5, "BMP": 5, "TIFF": 5, "HEIF": 6, "AVIF": 12, "WEBP": 16}
"""Bytes for each pixel at the peak."""


@pytest.mark.parametrize("kind", MEMORY)
def test_too_many_pixels_are_refused_by_the_header(kind: str) -> None:
    data = saved(scene(), kind)
    error = refusal(data, max_bytes=MEMORY[kind] * 96 * 64 - 1)
    assert (error.code, error.given, error.allowed) == ("too_many_pixels", "96x64", "at most 6143 pixels")
    assert decode(data, max_bytes=MEMORY[kind] * 96 * 64).width == 96


@pytest.mark.parametrize("side", [16000, 30000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_by_its_header_alone(side: int) -> None:
    body = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + body + struct.pack(">I", zlib.crc32(b"IHDR" + body))
    bomb += struct.pack(">I", 4) + b"IDAT" + bytes(4) + struct.pack(">I", zlib.crc32(b"IDAT" + bytes(4)))
    error = refusal(bomb)
    assert error.code == "too_many_pixels"
    assert (error.given, error.allowed) == (
        (f"{side}x{side}", "at most 204800000 pixels")
        if side == 16000
        else ("over 512 million pixels", "at most 256000000 pixels")
    )


def test_a_webp_bomb_is_refused_by_its_header_alone() -> None:
    size = (16383 - 1).to_bytes(3, "little")
    assert refusal(b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + size + size).code == "too_many_pixels"


def test_a_text_bomb_is_refused() -> None:
    info = PngInfo()
    info.add_text("t", "a" * 70_000_000, zip=True)
    assert refusal(saved(scene(), "PNG", pnginfo=info)).code == "truncated_image"


def test_too_small() -> None:
    error = refusal(saved(Image.new("RGB", (15, 300)), "PNG"))
    assert (error.code, error.given) == ("too_small", "15x300")
    assert decode(saved(Image.new("RGB", (16, 16)), "PNG")).width == 16
