"""What is served: the models, their versions, sizes, modes and defaults, and whether each can answer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from ddpm_api import ApiError, Error, ErrorBody, Mode, Sampler
from ddpm_api.form import numbers
from ddpm_service.gateway.documented import ModelName, VersionName
from ddpm_service.gateway.door import Door, door_of
from ddpm_service.torchserve.board import ModelState, State, VersionState

router = APIRouter(tags=["models"], responses={401: {"model": ErrorBody}})
NO_MODEL = "none is served"
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": ErrorBody}}


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """Every model with its versions, in OpenAI's list shape."""
    door = _identified(request)
    return {"object": "list", "data": [_described(model) for model in door.board.models().values()]}


@router.get("/v1/models/{name}", responses=_MISSING)
async def model(request: Request, name: ModelName) -> dict[str, Any]:
    """One model with its versions."""
    return _described(find_model(_identified(request), name))


@router.get("/v1/models/{name}/versions/{version}", responses=_MISSING)
async def version(request: Request, name: ModelName, version: VersionName) -> dict[str, Any]:
    """One version: its size, modes, defaults, where it comes from, and where it stands."""
    found = find_model(_identified(request), name)
    return _version(found, version, find_version(found, version))


@router.get("/v1/models/{name}/versions/{version}/ready", responses={**_MISSING, 503: {"description": "not ready"}})
async def version_ready(request: Request, name: ModelName, version: VersionName) -> JSONResponse:
    """Whether a version can answer, and why not: 200 or 503."""
    state = find_version(find_model(_identified(request), name), version)
    ready = state.state is State.READY
    document = {"ready": ready, "state": state.state, "reason": state.reason}
    return JSONResponse(document, 200 if ready else 503)


def find_model(door: Door, name: str) -> ModelState:
    """A model by its name.

    Raises:
        ApiError: there is none (`not_found`).
    """
    found = door.board.models().get(name)
    if found is None:
        known = ", ".join(door.board.models()) or NO_MODEL
        message = "There is no such model."
        raise ApiError(Error(code="not_found", message=message, field="model", given=name, allowed=known))
    return found


def find_version(model: ModelState, version: str) -> VersionState:
    """One of a model's versions.

    Raises:
        ApiError: there is none (`not_found`).
    """
    found = model.versions.get(version)
    if found is None:
        message = f"The model {model.name} has no such version."
        known = ", ".join(model.versions)
        raise ApiError(Error(code="not_found", message=message, field="version", given=version, allowed=known))
    return found


def _identified(request: Request) -> Door:
    door = door_of(request)
    door.gate.identify(request.headers.get("authorization"))
    return door


def _described(model: ModelState) -> dict[str, Any]:
    default = model.versions[model.default].manifest
    return {
        "id": model.name,
        "object": "model",
        "created": 0,  # bundles carry no date
        "owned_by": "local",
        "ready": model.ready,
        "default_version": model.default,
        "image_size": default.get("image_size"),
        "modes": [mode.value for mode in Mode],
        "samplers": [sampler.value for sampler in Sampler],
        "numbers": numbers(),
        "versions": [_version(model, version, state) for version, state in model.versions.items()],
    }


def _version(model: ModelState, version: str, state: VersionState) -> dict[str, Any]:
    bundle = state.manifest
    return {
        "version": version,
        "default": version == model.default,
        "ready": state.state is State.READY,
        "state": state.state,
        "reason": state.reason,
        "archive": state.archive,
        "domain": bundle.get("domain"),
        "image_size": bundle.get("image_size"),
        "channels": bundle.get("channels"),
        "prediction_type": bundle.get("prediction_type"),
        "defaults": bundle.get("defaults", {}),
        "most_calls": state.offers.get("most_calls"),
        "guide": bundle.get("guide"),
        "terms": bundle.get("provenance", {}).get("terms"),
        "data": bundle.get("provenance", {}).get("data"),
        "figures": bundle.get("figures", {}),
    }
