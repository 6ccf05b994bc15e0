"""The values a request's fields can take: modes, samplers, formats, crop boxes, and the picture itself."""

from __future__ import annotations

import base64
import binascii
import re
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, PlainValidator, Strict, WithJsonSchema

from ddpm_api.errors import InvalidRequest, refused


class Mode(StrEnum):
    """How the selfie guides: named points on one curve, a choice among them, by pixels, or not at all."""

    AUTO = "auto"
    FAITHFUL = "faithful"
    LIKENESS = "likeness"
    CELEBRITY = "celebrity"
    PIXEL = "pixel"
    NONE = "none"


class Sampler(StrEnum):
    """The way from noise to picture."""

    DDPM = "ddpm"
    DDIM = "ddim"
    DPMPP_2M = "dpmpp_2m"
    LCM = "lcm"


class OutputFormat(StrEnum):
    """The file format of the pictures; its media type is `image/<value>`."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def content_type(self) -> str:
        """The media type."""
        return f"image/{self.value}"


class Align(StrEnum):
    """How the face is brought into place when no box is given."""

    AUTO = "auto"
    CENTER = "center"
    NONE = "none"


class Box(NamedTuple):
    """A rectangle in pixels of the upright picture; right and bottom lie outside."""

    left: float
    top: float
    right: float
    bottom: float

    def __str__(self) -> str:
        return ",".join(f"{edge:g}" if edge != int(edge) else str(int(edge)) for edge in self)


ALIGN_ALLOWED = "auto, center, none, or a box left,top,right,bottom in pixels of the upright picture"
IMAGE_ALLOWED = "a picture: a file or raw bytes, or in JSON base64 or a data URL (data:image/…;base64,…)"

_NUMBER = r"\s*([+-]?\d{1,7}(?:\.\d{1,6})?)\s*"
_BOX = re.compile(",".join([_NUMBER] * 4), re.ASCII)
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


def as_align(value: Any) -> Any:
    """An `Align` or a `Box` from its text.

    Raises:
        InvalidRequest: not a text, an unknown word, or a box without an area.
    """
    if isinstance(value, Align | Box):
        return value
    if not isinstance(value, str):
        raise refused("wrong_type", "align", value, ALIGN_ALLOWED)
    if value in set(Align):
        return Align(value)
    edges = _BOX.fullmatch(value)
    if edges is None:
        raise refused("unknown_value", "align", value, ALIGN_ALLOWED)
    box = Box(*map(float, edges.groups()))
    if box.left >= box.right or box.top >= box.bottom:
        raise refused("out_of_range", "align", value, "a box with left < right and top < bottom")
    return box


def as_picture(value: Any) -> Any:
    """The picture's bytes from bytes, base64 or a data URL; what they hold is not looked at here.

    Raises:
        InvalidRequest: empty, neither bytes nor text, or a text that is not base64. Never repeats what was given.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
    elif isinstance(value, str):
        data = _decoded(value)
    else:
        raise refused("wrong_type", "image", value, IMAGE_ALLOWED)
    if not data:
        raise InvalidRequest("empty_image", "The picture is empty.", field="image", given=data, allowed=IMAGE_ALLOWED)
    return data


def _decoded(text: str) -> bytes:
    header = _DATA_URL.match(text)
    try:
        # line breaks are usual in base64, and harmless
        packed = text[header.end() if header else 0 :].encode("ascii").translate(None, b" \t\r\n")
        data = base64.b64decode(packed, validate=True)
    except (UnicodeEncodeError, binascii.Error):
        data = None
    if data is None:  # raised outside the handler, so that no traceback carries the text
        length = f"a text of {len(text)} characters"
        raise InvalidRequest(
            "not_base64", "The picture is not valid base64.", field="image", given=length, allowed=IMAGE_ALLOWED
        )
    return data


def from_text(text: str, kind: type[int] | type[float] | type[bool]) -> int | float | bool | str:
    """A number or truth value written as text (form fields, query strings); the text itself where it is none."""
    word = text.strip()
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(word.lower(), text)
    if kind is int:
        return int(word) if re.fullmatch(r"[+-]?\d{1,40}", word, re.ASCII) else text
    if re.fullmatch(r"[+-]?(\d{1,40}\.?\d{0,40}|\.\d{1,40})(e[+-]?\d{1,3})?", word, re.ASCII | re.IGNORECASE):
        return float(word)
    return float(word) if word.lower().lstrip("+-") in {"nan", "inf", "infinity"} else text


Picture = Annotated[
    bytes, BeforeValidator(as_picture), WithJsonSchema({"type": "string", "description": IMAGE_ALLOWED})
]
Alignment = Annotated[
    Align | Box, PlainValidator(as_align), WithJsonSchema({"type": "string", "description": ALIGN_ALLOWED})
]
Integer = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Flag = Annotated[bool, Strict()]


def without_null(schema: dict[str, Any]) -> None:
    """A field may be left out, but not be null: the published schema says so too."""
    for name, field in schema["properties"].items():
        kinds = [kind for kind in field.get("anyOf", ()) if kind != {"type": "null"}]
        if len(kinds) == 1:
            rest = {key: value for key, value in field.items() if key not in {"anyOf", "default"}}
            schema["properties"][name] = {**kinds[0], **rest}
