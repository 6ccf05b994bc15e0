"""Made pictures say that a model made them and how, and nothing else."""

from __future__ import annotations

import io
import json
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from ddpm_core.errors import InvalidInput
from ddpm_core.faces import CONTENT_TYPES, encode

SMOOTH = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], (1, 64, 3))
PARAMETERS = {"seed": 7, "sampler": "ddim", "resemblance": 0.5, "note": "naïve", "eta": None}
MARK = b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@pytest.mark.parametrize("output_format", CONTENT_TYPES)
def test_the_file_is_what_it_says(output_format: str) -> None:
    image = Image.open(io.BytesIO(encode(SMOOTH, output_format)))
    assert Image.MIME[image.format or ""] == CONTENT_TYPES[output_format]
    assert image.size == (64, 64)
    assert np.abs(np.asarray(image.convert("RGB")).astype(int) - SMOOTH).mean() < 2


def test_png_keeps_every_pixel() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(encode(noise)))) == noise).all()


@pytest.mark.parametrize("output_format", CONTENT_TYPES)
def test_every_file_carries_the_ai_mark(output_format: str) -> None:
    data = encode(SMOOTH, output_format, PARAMETERS)
    info = Image.open(io.BytesIO(data)).info
    root = ElementTree.fromstring(info["XML:com.adobe.xmp" if output_format == "png" else "xmp"])
    marks = [e.text for e in root.iter("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")]
    assert marks == [MARK.decode()]
    assert data.count(MARK) == 1


def test_png_text_holds_the_parameters() -> None:
    assert json.loads(Image.open(io.BytesIO(encode(SMOOTH, "png", PARAMETERS))).text["parameters"]) == PARAMETERS


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_exif_comment_holds_the_parameters(output_format: str) -> None:
    exif = Image.open(io.BytesIO(encode(SMOOTH, output_format, PARAMETERS))).getexif()
    comment = exif.get_ifd(0x8769)[0x9286]
    assert comment.startswith(b"ASCII\0\0\0")
    assert json.loads(comment[8:]) == PARAMETERS


def test_the_same_picture_gives_the_same_bytes() -> None:
    assert encode(SMOOTH, "png", PARAMETERS) == encode(SMOOTH, "png", PARAMETERS)


def test_an_unknown_format_is_named_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput) as caught:
        encode(SMOOTH, "tiff")
    assert (caught.value.field, caught.value.given, caught.value.allowed) == (
        "output_format",
        "tiff",
        "png, jpeg, webp",
    )
