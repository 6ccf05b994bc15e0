"""What happens to a request, one event at a time; the only thing the handler says.

A stream is `queued`* `warning`* `started` (`progress` | `preview` | `image` | `warning`)* `end`; with
`detect_only` it is `faces` `end`. It may end by `error` at any point. Without `end` or `error` it was cut.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from ddpm_api.errors import ErrorBody
from ddpm_api.shapes import GeneratedImage, Notice, Shape, Target, Timing


class _Named(Shape):
    event: str


class QueuedEvent(_Named):
    """Accepted, and waiting; position 1 is next."""

    event: Literal["queued"] = "queued"
    id: str
    position: int


class StartedEvent(_Named):
    """Work has begun, with these parameters: as used, defaults filled in."""

    event: Literal["started"] = "started"
    id: str
    model: str
    version: str
    seed: int
    parameters: dict[str, Any]
    target: Target | None = None


class WarningEvent(Notice, _Named):
    """Something was ignored, changed, or not as hoped."""

    event: Literal["warning"] = "warning"


class ProgressEvent(_Named):
    """So many of the network calls are done; the time left is None while it is unknown."""

    event: Literal["progress"] = "progress"
    step: int
    total_steps: int
    eta_seconds: float | None = None


class PreviewEvent(_Named):
    """One image as it looks after so many calls."""

    event: Literal["preview"] = "preview"
    step: int
    index: int
    content_type: str
    b64_json: str


class ImageEvent(GeneratedImage, _Named):
    """One finished picture."""

    event: Literal["image"] = "image"


class FacesEvent(_Named):
    """The answer to `detect_only`: the faces found, and the box that would be cut out."""

    event: Literal["faces"] = "faces"
    id: str
    model: str
    version: str
    target: Target


class ErrorEvent(ErrorBody, _Named):
    """It failed; nothing follows."""

    event: Literal["error"] = "error"


class EndEvent(_Named):
    """It is complete; nothing follows."""

    event: Literal["end"] = "end"
    timing: Timing


Event = (
    QueuedEvent
    | StartedEvent
    | WarningEvent
    | ProgressEvent
    | PreviewEvent
    | ImageEvent
    | FacesEvent
    | ErrorEvent
    | EndEvent
)

_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])

NDJSON_HEARTBEAT = b"\n"
SSE_HEARTBEAT = b": heartbeat\n\n"


def to_ndjson(event: Event) -> bytes:
    """The event as one line of JSON."""
    return _json(event) + b"\n"


def to_sse(event: Event) -> bytes:
    """The event as a server-sent event."""
    return b"event: %s\ndata: %s\n\n" % (event.event.encode(), _json(event))


def parse_event(line: str | bytes) -> Event:
    """The event in one line of NDJSON.

    Raises:
        ValueError: not an event of this contract. Blank lines (heartbeats) are the reader's to skip.
    """
    try:
        return _EVENT.validate_json(line)
    except ValidationError as problem:
        kind = problem.errors(include_url=False, include_input=False)[0]["type"]
    # outside the handler: pydantic's error holds the line, which may be a picture
    raise ValueError(f"not an event: {kind}")


def _json(event: BaseModel) -> bytes:
    return event.model_dump_json().encode()
