"""What several routes say of themselves in the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path

from ddpm_api import ErrorBody

ModelName = Annotated[str, Path(description="a model's name", examples=["faces-64"])]
VersionName = Annotated[str, Path(description="one of its versions", examples=["1.0"])]

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in {
        400: "not HTTP, or not JSON",
        401: "no valid token",
        403: "asked by a page of another site",
        404: "no such model or version",
        406: "cannot be answered as the Accept header asks",
        408: "the body did not arrive in time",
        413: "too many bytes or pixels",
        415: "not a picture, or a content type that is not taken",
        421: "asked by a name that is not this service's",
        422: "a field is unknown, wrong or out of range",
        429: "too many requests of this token",
        500: "it failed",
        502: "the answer broke off",
        503: "busy, starting or about to stop; see Retry-After",
        504: "the model has been silent for too long",
    }.items()
}
"""The failures of whatever makes pictures, by status."""
