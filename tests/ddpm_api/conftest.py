"""One request's events, with real pictures that carry the AI-generated mark."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ddpm_api import (
    EndEvent,
    Event,
    FoundFace,
    ImageEvent,
    PreviewEvent,
    ProgressEvent,
    QueuedEvent,
    StartedEvent,
    Target,
    Timing,
    WarningEvent,
)

MARK = '<x:xmpmeta xmlns:x="adobe:ns:meta/">trainedAlgorithmicMedia \N{SNOWMAN}</x:xmpmeta>'


def marked_picture(colour: str, output_format: str = "png", size: tuple[int, int] = (8, 8)) -> bytes:
    """A picture of one colour, marked and with parameters as the encoder does it."""
    picture, file = Image.new("RGB", size, colour), io.BytesIO()
    if output_format == "png":
        texts = PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", MARK)
        texts.add_text("parameters", f'{{"colour": "{colour}"}}')
        picture.save(file, "PNG", pnginfo=texts)
    else:
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9286] = f'ASCII\0\0\0{{"colour": "{colour}"}}'.encode()
        picture.save(file, output_format, quality=95, xmp=MARK.encode(), exif=exif)
    return file.getvalue()


def image_event(index: int, colour: str, output_format: str = "png") -> ImageEvent:
    """A finished picture of 8 × 8 pixels."""
    file = base64.b64encode(marked_picture(colour, output_format)).decode()
    kind = f"image/{output_format}"
    return ImageEvent(index=index, seed=100 + index, width=8, height=8, content_type=kind, b64_json=file)


@pytest.fixture
def picture_file() -> Callable[..., bytes]:
    return marked_picture


@pytest.fixture
def target() -> Target:
    return Target(faces=[FoundFace(box=(1, 2, 30, 40), score=0.9)], face=0, box=(-1.5, 0, 35, 44))


@pytest.fixture
def story(target: Target) -> Callable[..., list[Event]]:
    """The events of one request for as many images as there are colours, in an order that may happen."""

    def told(*colours: str, output_format: str = "png") -> list[Event]:
        images = [image_event(index, colour, output_format) for index, colour in enumerate(colours)]
        return [
            QueuedEvent(id="r1", position=2),
            QueuedEvent(id="r1", position=1),
            WarningEvent(code="no_face", message="No face was found."),
            StartedEvent(
                id="r1",
                model="faces-64",
                version="1.0",
                seed=100,
                parameters={"mode": "auto", "eta": 0.5},
                target=target,
            ),
            ProgressEvent(step=1, total_steps=2, eta_seconds=0.25),
            PreviewEvent(step=1, index=0, content_type="image/jpeg", b64_json="aGk="),
            ProgressEvent(step=2, total_steps=2),
            *reversed(images),
            EndEvent(timing=Timing(queue_seconds=0.1, seconds=0.5, calls=2)),
        ]

    return told
