"""The contract's own routes, on TorchServe's paths: a picture in, pictures, JSON or events out."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from ddpm_api import GenerateRequest, Kind, Rendering, Result, WarningEvent, choose
from ddpm_service.gateway.documented import ERRORS, ModelName, VersionName
from ddpm_service.gateway.door import Order, door_of
from ddpm_service.gateway.reading import read_request

router = APIRouter(tags=["pictures"])

_SSE = 'event: progress\ndata: {"event": "progress", "step": 7, "total_steps": 18, "eta_seconds": 1.3}\n\n'
_LINE = '{"event": "progress", "step": 7, "total_steps": 18, "eta_seconds": 1.3}\n'
_REQUEST = {"$ref": "#/components/schemas/GenerateRequest"}
_FILE = {"type": "string", "format": "binary"}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": _REQUEST,
                "examples": {
                    "unguided": {"summary": "Four faces from noise", "value": {"num_images": 4, "seed": 7}},
                    "stream": {"summary": "With previews", "value": {"num_images": 1, "preview_every": 2}},
                },
            },
            "image/jpeg": {"schema": _FILE},
            "application/octet-stream": {"schema": _FILE},
        },
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Result,
        "description": "By Accept: the result, one picture (a contact sheet of several), or events.",
        "content": {
            "image/png": {"schema": _FILE},
            "image/jpeg": {"schema": _FILE},
            "image/webp": {"schema": _FILE},
            "application/x-ndjson": {"schema": {"type": "string"}, "example": _LINE},
            "text/event-stream": {"schema": {"type": "string"}, "example": _SSE},
        },
    },
    **ERRORS,
}


@router.post("/predictions/{name}", responses=_ANSWERS, response_class=Response, openapi_extra=_BODY)
@router.put("/predictions/{name}", responses=_ANSWERS, response_class=Response, openapi_extra=_BODY)
async def predict(request: Request, name: ModelName) -> Response:
    """Make faces with the default version of a model.

    The body is the selfie itself (further fields as query parameters), a multipart form, or JSON.
    """
    return await _predict(request, name, None)


@router.post("/predictions/{name}/{version}", responses=_ANSWERS, response_class=Response, openapi_extra=_BODY)
@router.put("/predictions/{name}/{version}", responses=_ANSWERS, response_class=Response, openapi_extra=_BODY)
async def predict_version(request: Request, name: ModelName, version: VersionName) -> Response:
    """Make faces with one version of a model; else as without a version."""
    return await _predict(request, name, version)


async def _predict(request: Request, name: str, version: str | None) -> Response:
    async def order(body: bytes) -> Order:
        asked = await read_request(request, body)
        rendering = choose(request.headers.get("accept"), request.headers.get("content-type"), request=asked)
        return Order(name, version, _as_answered(asked, rendering), rendering)

    return await door_of(request).serve(request, order)


def _as_answered(asked: GenerateRequest, rendering: Rendering) -> GenerateRequest:
    """The request without what its answer has no use for, and its pictures encoded as that wants them.

    TorchServe is always asked for events, so it cannot know.
    """
    changes: dict[str, Any] = {}
    if rendering.kind is Kind.PICTURE and rendering.output_format is not asked.output_format:
        changes["output_format"] = rendering.output_format
    if asked.preview_every and not rendering.streams:
        changes["preview_every"] = 0
        notice = "preview_every: no effect, the answer is not a stream."
        rendering.feed(WarningEvent(code="no_effect", message=notice))
    return asked.model_copy(update=changes)
