"""Whether the process lives, whether it can be used, and what is at the root."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from ddpm_api import ApiError
from ddpm_service.gateway import pico
from ddpm_service.gateway.door import Door, door_of
from ddpm_service.page import CSP, FILES

router = APIRouter(tags=["health"])
_PAGE_HEADERS = {"Cache-Control": "no-cache", "Content-Security-Policy": CSP, "Vary": "Accept"}
_NOT_READY = {"description": "not ready, with the reason"}


@router.get("/healthz")
@router.head("/healthz", include_in_schema=False)
async def healthz() -> dict[str, str]:
    """Whether the process lives; says nothing about models, so that a busy GPU kills no pod."""
    return {"status": "alive"}


@router.get("/readyz", responses={503: _NOT_READY})
@router.head("/readyz", include_in_schema=False)
async def readyz(request: Request) -> JSONResponse:
    """Whether the default version of every model can answer; never false for being full."""
    door = door_of(request)
    waiting = {
        model.name: f"{model.default} is {model.versions[model.default].state}"
        for model in door.board.models().values()
        if not model.ready and _may_know(request)
    }
    document = {"status": _status(door), "waiting_for": waiting}
    return JSONResponse(document, 200 if door.ready else 503, {} if door.ready else {"Retry-After": "5"})


@router.get("/ping", responses={503: _NOT_READY})
@router.head("/ping", include_in_schema=False)
async def ping(request: Request) -> JSONResponse:
    """As TorchServe's, but true: healthy when ready."""
    ready = door_of(request).ready
    return JSONResponse({"status": "Healthy" if ready else "Unhealthy"}, 200 if ready else 503)


@router.get("/", response_class=JSONResponse, responses={200: {"content": {"text/html": {}}}})
@router.head("/", include_in_schema=False)
async def root(request: Request) -> Response:
    """The page for a browser, the state of the service for a program."""
    if "text/html" in request.headers.get("accept", ""):
        return FileResponse(FILES / "index.html", headers=_PAGE_HEADERS)
    door = door_of(request)
    state = {"status": _status(door), "tokens_needed": door.gate.tokens is not None}
    return JSONResponse(state | (_models(door) if _may_know(request) else {}), headers={"Vary": "Accept"})


def _status(door: Door) -> str:
    if door.gate.draining:
        return "stopping"
    return "online" if door.ready else "starting"


def _may_know(request: Request) -> bool:
    """Whether who asks may know which models there are: everybody, or who has a token where there are some."""
    try:
        door_of(request).gate.identify(request.headers.get("authorization"))
    except ApiError:
        return False
    return True


def _models(door: Door) -> dict[str, Any]:
    models = list(door.board.models().values())
    state: dict[str, Any] = {
        "model_loaded": door.ready and bool(models),
        "models": [model.name for model in models],
    }
    return state | pico.about(door)
