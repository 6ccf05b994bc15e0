"""OpenAI's image routes, so that its clients and load generators work: edits take a selfie, generations none."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from ddpm_api import (
    Error,
    ErrorEvent,
    Event,
    GenerateRequest,
    ImageEvent,
    InvalidRequest,
    Notice,
    PreviewEvent,
    Result,
    parse_form,
    parse_json,
)
from ddpm_service.gateway.answer import Renders, Whole
from ddpm_service.gateway.documented import ERRORS
from ddpm_service.gateway.door import Order, door_of
from ddpm_service.gateway.models import find_model
from ddpm_service.gateway.reading import FORM, JSON, media_type, named_as, read_form, read_json, unsupported
from ddpm_service.torchserve.board import ModelState

router = APIRouter(prefix="/v1/images", tags=["openai"], responses=ERRORS)

# Where our models take no number of calls from their bundle, guided faces need about so many.
_USUAL_CALLS = 9
_MOST_PARTIALS = 3
# Accepted because every client sends them; what they ask for does not exist here.
_IGNORED = (
    "prompt",
    "quality",
    "moderation",
    "style",
    "input_fidelity",
    "output_compression",
    "user",
    "safety_identifier",
)
_NO_USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}
_OWN: dict[str, Any] = {
    "model": {"type": "string", "description": "a model's name; absent = the first of the list"},
    "prompt": {"type": "string", "description": "accepted and ignored, with a warning"},
    "n": {"type": "integer", "minimum": 1, "maximum": 16},
    "size": {"type": "string", "description": "auto, or the model's own, such as 64x64"},
    "stream": {"type": "boolean"},
    "partial_images": {"type": "integer", "minimum": 0, "maximum": _MOST_PARTIALS},
    "output_format": {"type": "string", "enum": ["png", "jpeg", "webp"]},
}
# The client sends null for what its user left out.
_NULLABLE = {*_OWN, *_IGNORED, "mask", "background", "response_format"}
_FIELDS: dict[str, Any] = {
    **{name: {"anyOf": [schema, {"type": "null"}]} for name, schema in _OWN.items()},
    "seed": {"type": "integer", "description": "and all other fields of the contract"},
}


def _documented(media: str, fields: Mapping[str, Any], required: list[str], example: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": dict(fields)}
    if required:
        schema["required"] = required
    content: dict[str, Any] = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"requestBody": {"required": True, "content": {media: content}}}


@router.post(
    "/generations",
    response_class=Response,
    openapi_extra=_documented(JSON, _FIELDS, [], {"prompt": "a face", "n": 2, "size": "auto", "seed": 7}),
)
async def generations(request: Request) -> Response:
    """Faces from noise alone."""

    async def order(body: bytes) -> Order:
        if (media := media_type(request)) != JSON:
            raise unsupported(media)
        document = read_json(body)
        if not isinstance(document, dict):
            parse_json(document)  # which refuses it
        return _order(request, document, guided=False)

    return await door_of(request).serve(request, order)


@router.post(
    "/edits",
    response_class=Response,
    openapi_extra=_documented(FORM, {"image": {"type": "string", "format": "binary"}, **_FIELDS}, ["image"], None),
)
async def edits(request: Request) -> Response:
    """Faces that resemble the one in a picture."""

    async def order(body: bytes) -> Order:
        if (media := media_type(request)) != FORM:
            raise unsupported(media)
        form = await read_form(request, body)
        if not form:
            parse_form(form)  # which refuses it
        return _order(request, form, guided=True)

    return await door_of(request).serve(request, order)


def error_body(error: Error) -> bytes:
    """An error in OpenAI's shape, ours beside it."""
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(error.status)
    if kind is None:
        kind = "server_error" if error.status >= 500 else "invalid_request_error"
    return json.dumps({"error": {**error.model_dump(), "type": kind, "param": error.field}}).encode()


@dataclass(frozen=True)
class _Wish:
    """What only OpenAI's routes know."""

    stream: bool
    partial_images: int
    prefix: str
    size: str
    output_format: str
    warnings: tuple[Notice, ...]


def _order(request: Request, document: Mapping[str, Any], *, guided: bool) -> Order:
    given = {name: value for name, value in document.items() if not (value is None and name in _NULLABLE)}
    models = door_of(request).board.models()
    name = given.pop("model", next(iter(models), ""))
    if not isinstance(name, str):
        raise InvalidRequest("wrong_type", "model is not a text.", field="model", given=name, allowed=", ".join(models))
    model = find_model(door_of(request), name)
    size = _size(given.pop("size", "auto"), model)
    stream = _flag(given.pop("stream", False))
    partials = _partials(given.pop("partial_images", 0))
    _refuse_what_is_not_made(given)
    if not isinstance(prompt := given.get("prompt", ""), str):
        raise InvalidRequest("wrong_type", "prompt is not a text.", field="prompt", given=prompt, allowed="a text")
    ignored = [field for field in _IGNORED if field in given and given.pop(field) not in ("", "auto")]
    warnings = tuple(
        Notice(code="no_effect", message=f"{field}: no effect, only the picture guides.") for field in ignored
    )
    if "n" in given and "num_images" in given:
        raise InvalidRequest("conflict", "n and num_images are one.", field="n", allowed="one of them")
    own = {"num_images": "n"} if "n" in given else {}
    fields = {("num_images" if field == "n" else field): value for field, value in given.items()}
    if "image[]" in fields:
        fields["image"] = fields.pop("image[]")
    fields.setdefault("num_images", "1" if guided else 1)
    with named_as(own):
        asked = parse_form(fields) if guided else parse_json(fields)
    if guided and asked.image is None:
        raise InvalidRequest("image_required", "There is no picture to edit.", field="image", allowed="a file")
    if stream and partials:
        asked = asked.model_copy(update={"preview_every": _every(asked, model, partials)})
    prefix = "image_edit" if guided else "image_generation"
    wish = _Wish(stream, partials, prefix, size, asked.output_format.value, warnings)
    return Order(name, None, asked, _Stream(wish) if stream else Whole(partial(_document, wish), error_body))


def _size(given: Any, model: ModelState) -> str:
    side = model.versions[model.default].manifest.get("image_size")
    own = f"{side}x{side}"
    if side and given not in ("auto", own):
        message = f"The model {model.name} makes pictures of {own} only."
        raise InvalidRequest("unknown_value", message, field="size", given=given, allowed=f"auto, {own}")
    return own


def _flag(given: Any) -> bool:
    known = {True: True, False: False, "true": True, "false": False}
    if not isinstance(given, bool | str) or given not in known:
        raise InvalidRequest("wrong_type", "stream is neither true nor false.", field="stream", given=given)
    return known[given]


def _partials(given: Any) -> int:
    text = str(given) if isinstance(given, int | str) and not isinstance(given, bool) else ""
    if text not in {str(number) for number in range(_MOST_PARTIALS + 1)}:
        allowed = f"0..{_MOST_PARTIALS}"
        message = f"partial_images is not in {allowed}."
        raise InvalidRequest("out_of_range", message, field="partial_images", given=given, allowed=allowed)
    return int(text)


def _refuse_what_is_not_made(given: dict[str, Any]) -> None:
    if "mask" in given:
        raise InvalidRequest("unknown_field", "Masks are not taken; the whole face is made anew.", field="mask")
    for name, allowed in {"response_format": "b64_json", "background": "opaque"}.items():
        if (value := given.pop(name, allowed)) not in (allowed, "auto"):
            message = f"{name} can be {allowed} only."
            raise InvalidRequest("unknown_value", message, field=name, given=value, allowed=allowed)


def _every(asked: GenerateRequest, model: ModelState, partials: int) -> int:
    """Calls between previews that make about so many."""
    usual = model.versions[model.default].manifest.get("defaults", {}).get("num_inference_steps")
    calls = asked.num_inference_steps or (_USUAL_CALLS if asked.image is not None else usual) or _USUAL_CALLS
    return max(1, math.ceil(calls / (partials + 1)))


def _document(wish: _Wish, result: Result) -> dict[str, Any]:
    """The whole answer."""
    notices = (*wish.warnings, *result.warnings)
    return {
        "created": result.created,
        "data": [{"b64_json": image.b64_json, "seed": image.seed} for image in result.images],
        "background": "opaque",
        "output_format": wish.output_format,
        "size": wish.size,
        "usage": _NO_USAGE,
        "model": result.model,
        "warnings": [notice.model_dump() for notice in notices],
    }


class _Stream(Renders):
    """OpenAI's events."""

    streams = True
    heartbeat = b": heartbeat\n\n"

    def __init__(self, wish: _Wish) -> None:
        self.status, self.content_type = 200, "text/event-stream"
        self.retry_after: int | None = None
        self._wish = wish
        self._sent = False
        self._partials: dict[int, int] = {}

    def feed(self, event: Event) -> bytes:
        """The bytes to send for the next event."""
        match event:
            case PreviewEvent() if self._partials.get(event.index, 0) < self._wish.partial_images:
                number = self._partials.get(event.index, 0)
                self._partials[event.index] = number + 1
                output_format = event.content_type.removeprefix("image/")
                more = {"partial_image_index": number, "output_format": output_format, "image_index": event.index}
                return self._event("partial_image", {"b64_json": event.b64_json, **more})
            case ImageEvent():
                more = {"output_format": self._wish.output_format, "image_index": event.index, "seed": event.seed}
                return self._event("completed", {"b64_json": event.b64_json, "usage": _NO_USAGE, **more})
            case ErrorEvent() if self._sent:
                return b"event: error\ndata: %s\n\n" % error_body(event.error)
            case ErrorEvent():
                self.status, self.content_type = event.error.status, JSON
                self.retry_after = event.error.retry_after
                return error_body(event.error)
            case _ if not self._sent:
                # What comes before the first picture shows that the request was taken; so silences can be broken.
                self._sent = True
                return self.heartbeat
            case _:
                return b""

    def _event(self, kind: str, content: dict[str, Any]) -> bytes:
        self._sent = True
        name = f"{self._wish.prefix}.{kind}"
        usual = {"type": name, "created_at": int(time.time()), "size": self._wish.size}
        looks = {"quality": "auto", "background": "opaque"}
        return f"event: {name}\ndata: {json.dumps(usual | looks | content)}\n\n".encode()
