"""A picture whose every pixel is there is taken, whatever its end lacks; one with lost pixels is refused."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import skimage.data
import tifffile
from PIL import Image

from ddpm_core.errors import InvalidInput
from ddpm_core.faces import decode

ASTRONAUT = Image.fromarray(skimage.data.astronaut())
SMALL = ASTRONAUT.resize((192, 192))
FILLINGS = {"zeros": b"\0" * 4096, "ones": b"\xff" * 4096, "others'": np.random.default_rng(0).bytes(4096)}


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def refused(data: bytes) -> str:
    with pytest.raises(InvalidInput) as caught:
        decode(data)
    return caught.value.code


def same(data: bytes, whole: bytes) -> bool:
    return np.array_equal(np.asarray(decode(data).pixels), np.asarray(decode(whole).pixels))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("end", [b"", b"\xff", b"\0" * 4096, b"\xff\xd9" + b"\0" * 4096, b"\xff\xd9and more"])
def test_a_jpeg_needs_no_end_marker(end: bytes, progressive: bool) -> None:
    whole = saved(ASTRONAUT, "JPEG", progressive=progressive)
    assert same(whole[:-2] + end, whole)


@pytest.mark.parametrize("end", [b"", b"\xff\xd9", b"\0" * 4096])
@pytest.mark.parametrize("part", [1 / 3, 0.999])
def test_a_jpeg_that_ends_early_is_refused_whatever_it_ends_with(part: float, end: bytes) -> None:
    whole = saved(ASTRONAUT, "JPEG")
    assert refused(whole[: int(len(whole) * part)] + end) == "truncated_image"


@pytest.mark.parametrize("filling", FILLINGS.values(), ids=FILLINGS)
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}], ids=str)
def test_a_jpeg_with_a_hole_is_refused(options: dict[str, Any], filling: bytes) -> None:
    whole = saved(ASTRONAUT, "JPEG", **options)
    third = len(whole) // 3
    assert refused(whole[:third] + filling + whole[third + 4096 :]) == "truncated_image"


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "HEIF", "AVIF"])
@pytest.mark.parametrize("filling", ["zeros", "ones"])
def test_other_kinds_with_a_hole_are_refused(kind: str, filling: str) -> None:
    whole = saved(SMALL, kind, quality=90)
    half = len(whole) // 2
    assert refused(whole[:half] + FILLINGS[filling] + whole[half + 4096 :]) == "truncated_image"


@pytest.mark.parametrize("kind", ["JPEG", "HEIF", "AVIF", "WEBP"])
def test_empty_metadata_is_no_hole(kind: str) -> None:
    exif = Image.Exif()
    exif[0x927C] = bytes(8192)
    assert same(saved(SMALL, kind, exif=exif.tobytes()), saved(SMALL, kind))


@pytest.mark.parametrize("lost", [1, 4, 12, 16])
def test_a_png_needs_no_end(lost: int) -> None:
    whole = saved(ASTRONAUT, "PNG")
    assert same(whole[:-lost], whole)


@pytest.mark.parametrize("place", [33, -12], ids=["before the pixels", "behind"])
@pytest.mark.parametrize("name", [b"tEXt", b"gAMA", b"eXIf", b"iCCP"])
def test_a_png_needs_no_sound_words_beside_its_pixels(name: bytes, place: int) -> None:
    whole = saved(ASTRONAUT, "PNG")
    damaged = struct.pack(">I", 6) + name + b"da\0age" + b"...."
    assert same(whole[:place] + damaged + whole[place:], whole)


def test_a_png_with_a_wrong_checksum_of_pixels_is_refused() -> None:
    whole = saved(ASTRONAUT, "PNG")
    assert refused(whole[:-17] + b"x" + whole[-16:]) == "truncated_image"


@pytest.mark.parametrize("lost", [1, 100])
def test_a_webp_needs_nothing_behind_its_picture(lost: int) -> None:
    exif = Image.Exif()
    exif[0x927C] = bytes(range(256))
    whole = saved(ASTRONAUT, "WEBP", exif=exif.tobytes())
    assert same(whole[:-lost], whole)
    assert refused(whole[:-2000]) == "truncated_image"


ORIENTATION, JPEG_START, JPEG_LENGTH = 274, 513, 514


def camera_file(*pictures: tuple[Image.Image, str], held: int = 1) -> bytes:
    """A TIFF as cameras write it: a thumbnail, and inside its directory other pictures of a photometric kind."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        thumbnail = np.asarray(ASTRONAUT.resize((64, 64)))
        tags = [(ORIENTATION, "H", 1, held, False)]
        writer.write(thumbnail, photometric="rgb", subifds=len(pictures), subfiletype=1, extratags=tags)
        for picture, photometric in pictures:
            writer.write(np.asarray(picture), photometric=photometric)
    return file.getvalue()


def test_the_largest_picture_of_a_tiff_counts_and_is_held_as_the_first() -> None:
    inner = ASTRONAUT.resize((300, 200))
    picture = decode(camera_file((ASTRONAUT.resize((100, 80)), "rgb"), (inner, "rgb"), held=6))
    assert (picture.width, picture.height) == (200, 300)
    assert np.array_equal(picture.pixels, inner.transpose(Image.Transpose.ROTATE_270))


def test_the_pages_of_a_tiff_are_no_previews_of_another() -> None:
    pages = saved(ASTRONAUT, "TIFF", save_all=True, append_images=[Image.new("RGB", (512, 512))])
    assert np.array_equal(decode(pages).pixels, ASTRONAUT)


def test_raw_data_beside_a_thumbnail_is_refused_by_that_name() -> None:
    data = camera_file((Image.new("L", (2000, 1500)), "cfa"))
    with pytest.raises(InvalidInput, match=r"raw data.*preview of 64 × 64") as caught:
        decode(data)
    assert caught.value.code == "preview_only"


def test_raw_data_beside_a_large_preview_is_taken_by_the_preview() -> None:
    picture = decode(camera_file((ASTRONAUT.resize((1300, 900)), "rgb"), (Image.new("L", (2000, 1500)), "cfa")))
    assert (picture.width, picture.height) == (1300, 900)


def test_directories_in_a_circle_come_to_an_end() -> None:
    data = bytearray(saved(ASTRONAUT, "TIFF"))
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    struct.pack_into("<I", data, at + 2 + 12 * count, at)
    assert np.array_equal(decode(bytes(data)).pixels, ASTRONAUT)


MEASURE = """
import resource, sys
from ddpm_core.faces import decode
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
picture = decode(data)
print(picture.width, picture.height, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_photograph_of_200_megapixels_takes_little_memory() -> None:
    data = saved(Image.new("L", (16320, 12240), 128), "JPEG")
    shown = subprocess.run([sys.executable, "-c", MEASURE], input=data, capture_output=True, check=True)
    width, height, mebibytes = map(int, shown.stdout.split())
    assert (width, height) == (16320, 12240)
    assert mebibytes < 150
