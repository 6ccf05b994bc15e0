"""The four routes that an earlier full-stack generator documented: health (at the root), models, generate, config."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from ddpm_api import Error, InvalidRequest, Result, parse_json, read_json, unknown_field
from ddpm_service.gateway.answer import Whole
from ddpm_service.gateway.documented import ERRORS
from ddpm_service.gateway.door import Door, Order, door_of
from ddpm_service.gateway.models import NO_MODEL, find_model
from ddpm_service.gateway.reading import JSON, media_type, named_as, unsupported
from ddpm_service.torchserve.board import ModelState, State

router = APIRouter(tags=["compatible"], responses={401: ERRORS[401]})
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "content": {
            JSON: {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "model": {"type": "string", "description": "may be left out where one model is served"},
                        "image_size": {
                            "type": "array",
                            "items": {"type": "integer"},
                            "description": "the model's own width and height",
                        },
                        "channels": {"type": "integer", "description": "the model's own"},
                        "num_steps": {"type": "integer", "minimum": 1, "default": 50},
                        "seed": {"type": "integer", "minimum": -1},
                    },
                },
                "example": {"num_steps": 10, "seed": 7},
            }
        },
    }
}
_USUAL_STEPS = 50
_OWN_NAMES = {"num_inference_steps": "num_steps"}
_KNOWN = ("model", "image_size", "channels", "num_steps", "seed")


@router.get("/models")
async def models(request: Request) -> dict[str, Any]:
    """The models by name, with their archives."""
    door = door_of(request)
    door.gate.identify(request.headers.get("authorization"))
    listed = [_listed(model) for model in door.board.models().values()]
    return {"status": "success", "models": listed, "count": len(listed)}


@router.get("/config")
async def config(request: Request) -> dict[str, Any]:
    """The settings of the service and of its models."""
    door = door_of(request)
    door.gate.identify(request.headers.get("authorization"))
    described = {
        model.name: {"image_size": _size(model), "channels": _bundle(model).get("channels")}
        | {"version": model.default, "defaults": _bundle(model).get("defaults", {})}
        for model in door.board.models().values()
    }
    kept = [
        model.name
        for model in door.board.models().values()
        if any(version.state in {State.READY, State.SILENT, State.LEAVING} for version in model.versions.values())
    ]
    own = about(door)
    return {
        "status": "success",
        "device": own["device"],
        "cache_enabled": own["cache_enabled"],
        "cache_info": {"cached_models": len(kept), "model_names": kept},
        "models_directory": door.models_directory,
        "models_available": own["models_available"],
        "default_image_size": own["image_size"],
        "default_channels": own["channels"],
        "models": described,
        "limits": door.settings.model_dump(),
    }


@router.post("/generate", responses=ERRORS, response_class=Response, openapi_extra=_BODY)
async def generate(request: Request) -> Response:
    """One face from noise; its size and channels are the model's, and asking for others is an error."""

    async def order(body: bytes) -> Order:
        if body and (media := media_type(request)) != JSON:
            raise unsupported(media, JSON)
        document = read_json(body) if body else {}
        if not isinstance(document, dict):
            parse_json(document)  # which refuses it
        return _order(request, document)

    return await door_of(request).serve(request, order)


def about(door: Door) -> dict[str, Any]:
    """What those routes say of the service: the size and device are those of the first model."""
    models = list(door.board.models().values())
    first = models[0].versions[models[0].default] if models else None
    return {
        "models_available": len(models),
        "device": first.device if first else None,
        "cache_enabled": True,  # a model stays loaded
        "image_size": _size(models[0]) if models else None,
        "channels": first.manifest.get("channels") if first else None,
    }


def error_body(error: Error) -> bytes:
    """An error with the status and message of those routes, ours beside them."""
    if error.field in _OWN_NAMES:
        own = _OWN_NAMES[error.field]
        error = error.model_copy(update={"field": own, "message": error.message.replace(error.field, own, 1)})
    document: dict[str, Any] = {"status": "error", "message": error.message}
    if error.code == "not_found" and error.field == "model":
        known = [] if error.allowed == NO_MODEL else (error.allowed or "").split(", ")
        document |= {"message": f'Model "{error.given}" not found', "available_models": known}
    return json.dumps(document | {"error": error.model_dump()}).encode()


def _order(request: Request, given: dict[str, Any]) -> Order:
    door = door_of(request)
    if unknown := next((name for name in given if name not in _KNOWN), None):
        raise unknown_field(unknown, _KNOWN)
    known = door.board.models()
    name = given.get("model", next(iter(known)) if len(known) == 1 else None)
    if not isinstance(name, str):
        message = "The model's name is needed."
        raise InvalidRequest("wrong_type", message, field="model", given=name, allowed=", ".join(known))
    model = find_model(door, name)
    for field, own in {"image_size": _size(model), "channels": _bundle(model).get("channels")}.items():
        if own is not None and field in given and given[field] != own:
            message = f"The model {name} has {field} {own} and no other."
            raise InvalidRequest("unknown_value", message, field=field, given=given[field], allowed=str(own))
    fields = {"num_inference_steps": given.get("num_steps", _USUAL_STEPS), "seed": given.get("seed")}
    with named_as(_OWN_NAMES):
        asked = parse_json({key: value for key, value in fields.items() if value is not None})
    return Order(name, None, asked, Whole(partial(_picture, model), error_body))


def _bundle(model: ModelState) -> Any:
    return model.versions[model.default].manifest


def _size(model: ModelState) -> list[int] | None:
    side = _bundle(model).get("image_size")
    return None if side is None else [side, side]


def _listed(model: ModelState) -> dict[str, Any]:
    """A model by the archive of its default version; the size is in MiB."""
    version = model.versions[model.default]
    return {
        "name": model.name,
        "version": model.default,
        "path": version.archive,
        "extension": Path(version.archive).suffix,
        "size_mb": round(version.size / 2**20, 2),
    }


def _picture(model: ModelState, result: Result) -> dict[str, Any]:
    """The answer: one picture in base64."""
    picture = result.images[0]
    return {
        "image": picture.b64_json,
        "status": "success",
        "mode": "model",
        "model_used": result.model,
        "version": result.version,
        "image_size": [picture.width, picture.height],
        "channels": _bundle(model).get("channels"),
        "num_steps": result.timing.calls,
        "seed": picture.seed,
    }
