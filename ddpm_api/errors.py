"""What a refused or failed request is answered with: one JSON shape, and one table of statuses."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

Scalar = str | int | float | bool | None

# A code that is not named here speaks of the request's content: 422.
STATUS: dict[str, int] = {
    "malformed_json": 400,
    "malformed_body": 400,
    "unauthorized": 401,
    "cross_site": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "upload_timeout": 408,
    "too_large": 413,
    "too_many_pixels": 413,
    "too_costly": 413,
    "not_an_image": 415,
    "unsupported_media_type": 415,
    "unknown_host": 421,
    "rate_limited": 429,
    "internal": 500,
    "generation_failed": 500,
    "out_of_memory": 500,
    "unfinished": 502,
    "busy": 503,
    "draining": 503,
    "unavailable": 503,
    "timeout": 504,
}

_LONGEST = 80  # characters of what was given that are repeated in an answer
_NAME = re.compile(r"[\w.\- \[\]]{1,64}", re.ASCII)


def shown(value: Any) -> Scalar:
    """What was given, short enough and safe to repeat: never bytes, never a long text, always valid JSON.

    Long texts and bytes are described by their length only, because they may be a picture.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < 10**_LONGEST else f"an integer of {value.bit_length()} bits"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        if len(value) > _LONGEST:
            return f"a text of {len(value)} characters"
        if value.isprintable():
            return str(value)
        return value.encode("unicode_escape").decode("ascii")[:_LONGEST]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    if isinstance(value, dict):
        return f"an object of {len(value)} fields"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)} values"
    return f"a value of type {type(value).__name__}"


def shown_name(name: Any) -> str:
    """A field's name if it looks like one, else only its length: a stray picture can arrive as a name."""
    text = str(name)
    return text if _NAME.fullmatch(text) else f"a name of {len(text)} characters"


class Error(BaseModel):
    """One failure: what was wrong, where, what was given and what is allowed.

    `retry_after` (seconds) belongs into the `Retry-After` header and is no part of the JSON.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    code: str
    message: str
    field: str | None = None
    given: Scalar = None
    allowed: str | None = None
    retry_after: int | None = Field(default=None, exclude=True)

    @field_validator("given", mode="before")
    @classmethod
    def _short(cls, value: Any) -> Scalar:
        return shown(value)

    @property
    def status(self) -> int:
        """The HTTP status that goes with the code."""
        return STATUS.get(self.code, 422)


class ErrorBody(BaseModel):
    """The body of every error answer: `{"error": {…}}`."""

    model_config = ConfigDict(frozen=True)

    error: Error

    def to_json(self) -> bytes:
        """The answer's bytes, content type `application/json`."""
        return self.model_dump_json().encode()


class ApiError(Exception):
    """A failure that has an answer: raised with its `Error`, caught where answers are made or read."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.error = error

    @property
    def status(self) -> int:
        """The HTTP status of the answer."""
        return self.error.status

    @property
    def body(self) -> ErrorBody:
        """The answer's body."""
        return ErrorBody(error=self.error)


class InvalidRequest(ApiError, ValueError):
    """A request that breaks the contract; takes the parts of its `Error`."""

    def __init__(
        self, code: str, message: str, *, field: str | None = None, given: Any = None, allowed: str | None = None
    ) -> None:
        super().__init__(Error(code=code, message=message, field=field, given=given, allowed=allowed))


def refused(code: str, field: str, given: Any, allowed: str) -> InvalidRequest:
    """The usual refusal of one field's value, its sentence made of the parts."""
    short = shown(given)
    said = json.dumps(short, ensure_ascii=False) if short == given else short
    message = f"{field}: {said} is not allowed; allowed: {allowed}."
    return InvalidRequest(code, message, field=field, given=given, allowed=allowed)
