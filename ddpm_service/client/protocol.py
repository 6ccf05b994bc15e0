"""What a client asks and how it understands the answer; how the bytes travel is not its business."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

from pydantic import ValidationError

from ddpm_api import ApiError, EndEvent, Error, ErrorBody, ErrorEvent, Event, ImageLike, file_of, parse_event
from ddpm_service.errors import ServiceError

DEFAULT_MODEL = "faces-64"
HEADERS = {"Accept": "application/x-ndjson"}
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 120.0  # the front door sends a heartbeat at least every 15
RETRIES = 3
"""How often a service is asked again that says by 503 and `Retry-After` that it has done nothing yet."""
CONNECT_RETRIES = 2
BACKOFF_SECONDS = 0.1

TIMED_OUT = "does not answer in time"
NOT_REACHED = "cannot be reached, or closes the connection; is the service running there?"
NO_ADDRESS = "is no address that can be asked"

_CODES = {
    400: "malformed_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    429: "rate_limited",
    503: "unavailable",
    504: "timeout",
}


class RequestFailed(ApiError, ServiceError):
    """The service refused the request or failed at it; `error` is its answer, `status` the HTTP status."""


class Unreachable(ServiceError):
    """Nothing that speaks this protocol answers.

    Attributes:
        url: where it was looked for.
    """

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"{url} {why}")
        self.url = url


@dataclass(frozen=True)
class Ask:
    """One request for faces.

    Attributes:
        url: where it is posted to.
        picture: the selfie's file; without one the fields are sent as JSON, with it both as a form.
        fields: the request's other fields.
    """

    url: str
    picture: bytes | None
    fields: Mapping[str, Any]

    @classmethod
    def of(
        cls, service: str, image: ImageLike | None, model: str, version: str | None, fields: Mapping[str, Any]
    ) -> Self:
        """Read the picture, and leave out what is None.

        Raises:
            OSError: the picture's file cannot be read.
        """
        path = "/".join(quote(part, safe="") for part in ("predictions", model, version) if part is not None)
        given = {name: value for name, value in fields.items() if value is not None}
        return cls(f"{service}/{path}", None if image is None else file_of(image), given)

    @property
    def texts(self) -> dict[str, str]:
        """The fields as a form carries them."""
        return {name: _text(value) for name, value in self.fields.items()}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)  # a box


class Events:
    """The events in the bytes of an answer, to its last one, so that the connection can serve again."""

    def __init__(self, ask: Ask) -> None:
        self._url = ask.url
        self._rest = b""
        self._ended = False

    def feed(self, some: bytes) -> Iterator[Event]:
        """Give the events that are whole now.

        Raises:
            RequestFailed: the answer has an error, or breaks off inside a line.
        """
        *lines, self._rest = (self._rest + some).split(b"\n")
        for line in filter(bytes.strip, lines):
            try:
                event = parse_event(line)
            except ValueError:
                raise self._unfinished() from None
            if isinstance(event, ErrorEvent):
                raise RequestFailed(event.error)
            self._ended = isinstance(event, EndEvent)
            yield event

    def close(self) -> None:
        """Say that no more bytes come.

        Raises:
            RequestFailed: the answer is not at its end.
        """
        if not self._ended:
            raise self._unfinished()

    def _unfinished(self) -> RequestFailed:
        return RequestFailed(Error(code="unfinished", message=f"The answer of {self._url} broke off before its end."))


def is_stream(status: int, headers: Mapping[str, str]) -> bool:
    """Whether events come."""
    return status == 200 and headers.get("Content-Type", "").startswith(HEADERS["Accept"])


def refusal(ask: Ask, status: int, reason: str | None, headers: Mapping[str, str], body: bytes) -> ServiceError:
    """Give the error of an answer without events.

    It is told in our shape, in TorchServe's ({"code", "type", "message"}), or by the status alone.
    """
    if status == 200:
        return Unreachable(ask.url, "is not this service: its answer is no stream of events")
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    after = retry_after(headers)
    try:
        return RequestFailed(ErrorBody.model_validate(document).error.model_copy(update={"retry_after": after}))
    except ValidationError:
        said = document.get("message") if isinstance(document, dict) else None
    message = said if isinstance(said, str) else f"{ask.url} answered {status} {reason}."
    return RequestFailed(Error(code=_CODES.get(status, "internal"), message=message, retry_after=after))


def retry_after(headers: Mapping[str, str]) -> int | None:
    """Seconds after which the service wants to be asked again, if it says so."""
    after = headers.get("Retry-After", "")
    return int(after) if after.isascii() and after.isdigit() else None
