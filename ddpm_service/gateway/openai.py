"""OpenAI's image routes, so that its clients and load generators work: edits take a selfie, generations none."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
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
    unknown_field,
)
from ddpm_service.gateway.answer import Renders, Whole
from ddpm_service.gateway.documented import ERRORS
from ddpm_service.gateway.door import Order, door_of
from ddpm_service.gateway.openai_fields import (
    MOST_PARTIALS,
    as_flag,
    as_kinds,
    as_partials,
    idle,
    read_document,
    read_fields,
    take_model,
    take_size,
)
from ddpm_service.gateway.reading import FORM, JSON, form_parts, media_type, named_as, unsupported
from ddpm_service.torchserve.board import ModelState

router = APIRouter(prefix="/v1/images", tags=["openai"], responses=ERRORS)

# The usual number of network calls of guided faces, where the bundle does not say.
_USUAL_CALLS = 9
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
    "size": {"type": "string", "description": "auto: the model's own; another is resized to, with a warning"},
    "stream": {"type": "boolean"},
    "partial_images": {"type": "integer", "minimum": 0, "maximum": MOST_PARTIALS},
    "output_format": {"type": "string", "enum": ["png", "jpeg", "webp"]},
    "response_format": {"type": "string", "enum": ["b64_json", "url"], "description": "url: a data: URL; absent: both"},
}
# Clients send null for what their users left out.
_FIELDS: dict[str, Any] = {
    name: {"anyOf": [schema, {"type": "null"}]}
    for name, schema in {
        **_OWN,
        "seed": {"type": "integer", "description": "and all other fields of the contract"},
    }.items()
}


def _documented(bodies: Mapping[str, Mapping[str, Any]], required: list[str], example: Any) -> dict[str, Any]:
    """The body of a route: by media type its fields."""
    content: dict[str, Any] = {}
    for media, fields in bodies.items():
        schema = {"type": "object", "properties": dict(fields)} | ({"required": required} if required else {})
        content[media] = {"schema": schema} | ({} if example is None else {"example": example})
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/generations",
    response_class=Response,
    openapi_extra=_documented({JSON: _FIELDS}, [], {"prompt": "a face", "n": 2, "size": "auto", "seed": 7}),
)
async def generations(request: Request) -> Response:
    """Faces from noise alone."""

    async def order(body: bytes) -> Order:
        if (media := media_type(request)) != JSON:
            raise unsupported(media, JSON)
        return _order(request, await read_document(body), [], guided=False)

    return await door_of(request).serve(request, order)


@router.post(
    "/edits",
    response_class=Response,
    openapi_extra=_documented(
        {
            FORM: {"image": {"type": "string", "format": "binary"}, **_FIELDS},
            JSON: {"image": {"type": "string", "description": "base64 or a data URL"}, **_FIELDS},
        },
        ["image"],
        None,
    ),
)
async def edits(request: Request) -> Response:
    """Faces that resemble the one in a picture."""

    async def order(body: bytes) -> Order:
        media, warnings = media_type(request), list[Notice]()
        if media not in {FORM, JSON}:
            raise unsupported(media, f"{FORM}, {JSON}")
        if media == JSON:
            return _order(request, await read_document(body), warnings, guided=True)
        fields = read_fields(await form_parts(request, body), warnings)
        return _order(request, fields, warnings, guided=True, parse=parse_form)

    return await door_of(request).serve(request, order)


def error_body(error: Error) -> bytes:
    """An error in OpenAI's shape, ours beside it."""
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(error.status)
    if kind is None:
        kind = "server_error" if error.status >= 500 else "invalid_request_error"
    return json.dumps({"error": {**error.model_dump(), "type": kind, "param": error.field}}).encode()


@dataclass(frozen=True)
class _Wish:
    """What only OpenAI's routes know: with which files the pictures come, and in which size."""

    stream: bool
    partial_images: int
    prefix: str
    size: str
    kinds: tuple[str, ...]
    output_format: str
    warnings: tuple[Notice, ...]


def _order(
    request: Request,
    given: dict[str, Any],
    warnings: list[Notice],
    *,
    guided: bool,
    parse: Callable[[Any], GenerateRequest] = parse_json,
) -> Order:
    known = {*_OWN, *_IGNORED, "background", "mask", "response_format", *GenerateRequest.model_fields}
    for name in given:
        if name not in known:
            raise unknown_field(name, sorted(known - {"mask"}))
    model = take_model(door_of(request), given, warnings)
    size, through = take_size(given.pop("size", "auto"), model, warnings)
    stream = as_flag(given.pop("stream", False))
    partials = as_partials(given.pop("partial_images", 0))
    if given.pop("background", "auto") not in ("", "auto", "opaque"):
        warnings.append(idle("background", "pictures are opaque"))
    if given.pop("mask", ""):
        warnings.append(idle("mask", "the whole face is made anew"))
    kinds = as_kinds(given.pop("response_format", ""))
    if not isinstance(prompt := given.get("prompt", ""), str):
        raise InvalidRequest("wrong_type", "prompt is not a text.", field="prompt", given=prompt, allowed="a text")
    ignored = [field for field in _IGNORED if field in given and given.pop(field) not in ("", "auto")]
    warnings += [idle(field, "only the picture guides") for field in ignored]
    if "n" in given and "num_images" in given:
        raise InvalidRequest("conflict", "n and num_images are one.", field="n", allowed="one of them")
    own = {"num_images": "n"} if "n" in given else {}
    fields = {("num_images" if field == "n" else field): value for field, value in given.items()}
    fields.setdefault("num_images", "1" if parse is parse_form else 1)
    with named_as(own):
        asked = parse(fields)
    if guided and asked.image is None:
        raise InvalidRequest("image_required", "There is no picture to edit.", field="image", allowed="a picture")
    if stream and partials:
        asked = asked.model_copy(update={"preview_every": _every(asked, model, partials)})
    prefix = "image_edit" if guided else "image_generation"
    wish = _Wish(stream, partials, prefix, size, kinds, asked.output_format.value, tuple(warnings))
    rendering = _Stream(wish) if stream else Whole(partial(_answer, wish), error_body)
    return Order(model.name, None, asked, rendering, through)


def _every(asked: GenerateRequest, model: ModelState, partials: int) -> int:
    """Calls between previews that make about so many."""
    usual = model.versions[model.default].manifest.get("defaults", {}).get("num_inference_steps")
    calls = asked.num_inference_steps or (_USUAL_CALLS if asked.image is not None else usual) or _USUAL_CALLS
    return max(1, math.ceil(calls / (partials + 1)))


def _answer(wish: _Wish, result: Result) -> dict[str, Any]:
    """The whole answer."""
    notices = (*wish.warnings, *result.warnings)
    pictures = [
        {"b64_json": image.b64_json, "url": f"data:{image.content_type};base64,{image.b64_json}", "seed": image.seed}
        for image in result.images
    ]
    return {
        "created": result.created,
        "data": [
            {name: value for name, value in picture.items() if name in (*wish.kinds, "seed")} for picture in pictures
        ],
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
                # The first event shows the client that the request was taken. From then on heartbeats may be sent.
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
