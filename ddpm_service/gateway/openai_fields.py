"""The fields of OpenAI's image routes, in whatever shape its clients send them: what cannot be had is warned of."""

from __future__ import annotations

import asyncio
import base64
import io
import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from functools import partial
from typing import Any

from PIL import Image

from ddpm_api import (
    PICTURE_NAMES,
    Event,
    ImageEvent,
    InvalidRequest,
    Notice,
    OutputFormat,
    PreviewEvent,
    parse_form,
    parse_json,
    read_json,
    save_marked,
)
from ddpm_api.errors import refused
from ddpm_api.fields import IMAGE_ALLOWED
from ddpm_service.gateway.door import Door, Through
from ddpm_service.gateway.models import find_model
from ddpm_service.gateway.reading import aside, single
from ddpm_service.torchserve.board import ModelState

MOST_PARTIALS = 3
_JSON_PICTURES = (*PICTURE_NAMES, "images", "image_url")
_EDGES = re.compile(r"(\d{1,5})[xX×](\d{1,5})")
_LONGEST_SIDE = 2048


async def read_document(body: bytes) -> dict[str, Any]:
    """The fields of a JSON body; what is null was left out."""
    document = await aside(body, lambda: read_json(body))
    if not isinstance(document, dict):
        parse_json(document)  # which refuses it
    given = {name: value for name, value in document.items() if value is not None}
    names = [name for name in _JSON_PICTURES if name in given]
    pictures = list(dict.fromkeys(each for name in names for each in _pictures(name, given.pop(name))))
    if len(pictures) > 1:
        raise _several(names)
    return given | ({"image": pictures[0]} if pictures else {})


def _pictures(name: str, value: Any) -> list[str]:
    """The base64 texts in whatever shape OpenAI's APIs know: a text, an object with `image_url`, a list of them."""
    match value:
        case str() if value.lower().startswith(("http:", "https:")):
            message = f"{name}: pictures are not fetched from elsewhere; send the picture itself."
            raise InvalidRequest("unknown_value", message, field=name, given=value, allowed=IMAGE_ALLOWED)
        case str():
            return [value]
        case list():
            return [picture for each in value for picture in _pictures(name, each)]
        case {"image_url": inner} | {"url": inner} | {"b64_json": inner}:
            return _pictures(name, inner)
    raise refused("wrong_type", name, value, IMAGE_ALLOWED)


def read_fields(parts: list[tuple[str, str | bytes]], warnings: list[Notice]) -> dict[str, Any]:
    """The fields of a form. Some clients send a picture under several names, or what is none beside it."""
    if not parts:
        parse_form({})  # which refuses it
    pictures = [(name, value) for name, value in parts if name in PICTURE_NAMES]
    files = {value for _, value in pictures if isinstance(value, bytes)}
    if len(files) > 1:
        raise _several([name for name, _ in pictures])
    fields: dict[str, Any] = single([part for part in parts if part[0] not in PICTURE_NAMES])
    # What a form leaves empty was left out; an empty model is told.
    fields = {name: value for name, value in fields.items() if value or name == "model"}
    if not files:
        return fields | single(("image", value) for _, value in pictures)
    texts = [name for name, value in pictures if isinstance(value, str)]
    warnings += [idle(name, "it is no picture, and there is one") for name in texts]
    return fields | {"image": files.pop()}


def _several(names: Iterable[str]) -> InvalidRequest:
    message = "There are several pictures, and one face is made anew."
    return InvalidRequest("conflict", message, field="image", given=", ".join(names), allowed="one picture")


def take_model(door: Door, given: dict[str, Any], warnings: list[Notice]) -> ModelState:
    """Take the model out of the fields; none, and an empty one, is the first of the list."""
    models = door.board.models()
    first = next(iter(models), "")
    name = given.pop("model", first)
    if not isinstance(name, str):
        raise InvalidRequest("wrong_type", "model is not a text.", field="model", given=name, allowed=", ".join(models))
    if not name:
        warnings.append(idle("model", f"it is empty; {first} answers"))
    return find_model(door, name or first)


def take_size(given: Any, model: ModelState, warnings: list[Notice]) -> tuple[str, Through | None]:
    """The size of the answer's pictures, and what brings those of the model to it."""
    side = model.versions[model.default].manifest.get("image_size")
    own = f"{side}x{side}" if side else "auto"
    edges = _EDGES.fullmatch(given) if isinstance(given, str) else None
    if given in ("", "auto", own) or (edges and not side):
        return own, None
    longest = 0 if edges is None else max(map(int, edges.groups()))
    if edges is None or not 1 <= longest <= _LONGEST_SIDE or "0" in edges.groups():
        allowed = f"auto, {own}, or WIDTHxHEIGHT up to {_LONGEST_SIDE}"
        raise InvalidRequest("unknown_value", "size is no size.", field="size", given=given, allowed=allowed)
    wanted = min(map(int, edges.groups()))
    size = f"{wanted}x{wanted}"
    warnings.append(Notice(code="resized", message=f"size: made at {own} and resized to {size}; no detail is added."))
    return size, partial(_resized, wanted)


async def _resized(side: int, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """The events with their pictures in another size."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, ImageEvent | PreviewEvent):
                yield await asyncio.to_thread(_resize, event, side)
            else:
                yield event


def _resize(event: ImageEvent | PreviewEvent, side: int) -> Event:
    made = Image.open(io.BytesIO(base64.b64decode(event.b64_json)))
    drawn = made.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    file = save_marked(drawn, OutputFormat(event.content_type.removeprefix("image/")), made)
    sides = {"width": side, "height": side} if isinstance(event, ImageEvent) else {}
    return event.model_copy(update={"b64_json": base64.b64encode(file).decode(), **sides})


def as_flag(given: Any) -> bool:
    """What `stream` says."""
    known = {True: True, False: False, "true": True, "false": False, "": False}
    if not isinstance(given, bool | str) or given not in known:
        raise InvalidRequest("wrong_type", "stream is neither true nor false.", field="stream", given=given)
    return known[given]


def as_partials(given: Any) -> int:
    """How many previews each picture has."""
    text = str(given) if isinstance(given, int | str) and not isinstance(given, bool) else ""
    if text not in {str(number) for number in range(MOST_PARTIALS + 1)}:
        allowed = f"0..{MOST_PARTIALS}"
        message = f"partial_images is not in {allowed}."
        raise InvalidRequest("out_of_range", message, field="partial_images", given=given, allowed=allowed)
    return int(text)


def as_kinds(given: Any) -> tuple[str, ...]:
    """In what form pictures are given: where nobody says, in both, for older clients read the address alone."""
    known = {"": ("b64_json", "url"), "auto": ("b64_json", "url"), "b64_json": ("b64_json",), "url": ("url",)}
    if not isinstance(given, str) or given not in known:
        message = "response_format can be b64_json or url."
        raise InvalidRequest(
            "unknown_value", message, field="response_format", given=given, allowed="b64_json, or url: a data: URL"
        )
    return known[given]


def idle(what: str, why: str) -> Notice:
    """The warning of a field that changes nothing."""
    return Notice(code="no_effect", message=f"{what}: no effect, {why}.")
