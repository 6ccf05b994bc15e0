"""Events as what the client asked for: a picture, the JSON result, NDJSON lines or server-sent events."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Literal, NamedTuple

from ddpm_api.errors import Error, ErrorBody, InvalidRequest, shown
from ddpm_api.events import NDJSON_HEARTBEAT, SSE_HEARTBEAT, EndEvent, ErrorEvent, Event, to_ndjson, to_sse
from ddpm_api.fields import OutputFormat
from ddpm_api.picture import contact_sheet
from ddpm_api.request import GenerateRequest
from ddpm_api.result import ResultBuilder

JSON = "application/json"


class Kind(StrEnum):
    """How an answer is given."""

    PICTURE = "picture"
    JSON = "json"
    NDJSON = "ndjson"
    SSE = "sse"


class Offer(NamedTuple):
    """One way to answer, its media type, and the file format of its pictures."""

    kind: Kind
    content_type: str
    output_format: OutputFormat


_OTHERS = {Kind.JSON: JSON, Kind.NDJSON: "application/x-ndjson", Kind.SSE: "text/event-stream"}


class Rendering:
    """The bytes of an answer, made of the events of its request.

    `status`, `content_type` and `retry_after` are those of the answer; they change only by an error that comes
    before anything was sent, which is answered as JSON whatever was asked for. `output_format` is what pictures are
    best encoded in.
    """

    def __init__(self, offer: Offer) -> None:
        self.kind = offer.kind
        self.content_type = offer.content_type
        self.output_format = offer.output_format
        self.status = 200
        self.retry_after: int | None = None
        self._sent = False
        self._builder = ResultBuilder()

    @property
    def done(self) -> bool:
        """Whether `end` or `error` came."""
        return self._builder.done

    @property
    def streams(self) -> bool:
        """Whether the answer comes event by event; else it comes whole, at the end."""
        return self.kind in {Kind.NDJSON, Kind.SSE}

    @property
    def heartbeat(self) -> bytes:
        """What may be sent at any time to show that the stream is alive; nothing for a whole answer."""
        return {Kind.NDJSON: NDJSON_HEARTBEAT, Kind.SSE: SSE_HEARTBEAT}.get(self.kind, b"")

    def begin(self) -> bytes:
        """Begin a stream before its first event, by a heartbeat: an error that comes later is an event of it."""
        self._sent = self._sent or self.streams
        return self.heartbeat

    def feed(self, event: Event) -> bytes:
        """The bytes to send now, b"" for none; a whole answer comes with `end` or `error`."""
        if self._builder.done:
            return b""
        if isinstance(event, ErrorEvent) and not self._sent:
            self._builder.feed(event)
            return self._refuse(event.error)
        if self.streams:
            if isinstance(event, ErrorEvent | EndEvent):
                self._builder.feed(event)
            self._sent = True
            return to_ndjson(event) if self.kind is Kind.NDJSON else to_sse(event)
        self._builder.feed(event)
        return self._whole() if isinstance(event, EndEvent) else b""

    def _whole(self) -> bytes:
        result = self._builder.result()
        if self.kind is Kind.JSON:
            return result.to_json()
        files = [image.data for image in result.images]
        if len(files) == 1 and result.images[0].content_type == self.content_type:
            return files[0]
        return contact_sheet(files, self.output_format)

    def _refuse(self, error: Error) -> bytes:
        self.status, self.content_type, self.retry_after = error.status, JSON, error.retry_after
        return ErrorBody(error=error).to_json()


def choose(
    accept: str | None,
    content_type: str | None,
    transport: Literal["http", "grpc"] = "http",
    *,
    request: GenerateRequest,
) -> Rendering:
    """The rendering that an `Accept` header asks for; the request's own kind decides where it leaves it open.

    Left open (none, or `*/*`): JSON over gRPC and for a JSON request, a picture for all else. A picture is of the
    request's `output_format` if that was given, else of the type that is accepted.

    Raises:
        InvalidRequest: nothing on offer is accepted (`not_acceptable`, 406).
    """
    offers = _offers(request, json_first=transport == "grpc" or _media_type(content_type) == JSON)
    ranges = _ranges(accept or "*/*")
    ranked = [(rank, -position, offer) for position, offer in enumerate(offers) if (rank := _rank(offer, ranges))]
    if not ranked:
        allowed = ", ".join(offer.content_type for offer in offers)
        message = f"The answer cannot be given as the Accept header asks; possible here: {allowed}."
        raise InvalidRequest("not_acceptable", message, field="Accept", given=shown(accept), allowed=allowed)
    return Rendering(max(ranked)[2])


def _offers(request: GenerateRequest, *, json_first: bool) -> list[Offer]:
    """The ways to answer this request, the one for `*/*` first."""
    json, *streams = [Offer(kind, media, request.output_format) for kind, media in _OTHERS.items()]
    if request.detect_only:
        return [json, *streams]
    formats = [request.output_format] if "output_format" in request.model_fields_set else [*OutputFormat]
    pictures = [Offer(Kind.PICTURE, each.content_type, each) for each in formats]
    return [json, *pictures, *streams] if json_first else [*pictures, json, *streams]


class _Range(NamedTuple):
    """One entry of an Accept header."""

    media: str
    quality: float
    position: int

    def fit(self, content_type: str) -> int:
        """0 = does not match, 1 = `*/*`, 2 = `type/*`, 3 = exactly."""
        if self.media == content_type:
            return 3
        if self.media == content_type.split("/")[0] + "/*":
            return 2
        return 1 if self.media == "*/*" else 0


def _ranges(accept: str) -> list[_Range]:
    """The entries of an Accept header; one with a malformed quality counts as never written (RFC 9110, 12.5.1)."""
    ranges = []
    for position, entry in enumerate(accept.split(",")):
        media, *settings = (part.strip().lower() for part in entry.split(";"))
        quality = next((text[2:] for text in settings if text.startswith("q=")), "1")
        if re.fullmatch(r"0(\.\d{0,3})?|1(\.0{0,3})?", quality, re.ASCII):
            ranges.append(_Range("*/*" if media == "*" else media, float(quality), position))
    return ranges


def _rank(offer: Offer, ranges: list[_Range]) -> tuple[float, int, int] | None:
    """How much an offer is wanted: quality, then how exactly it is named, then how early; None if it is refused."""
    fits = [(fit, -entry.position, entry.quality) for entry in ranges if (fit := entry.fit(offer.content_type))]
    if not fits:
        return None
    fit, early, quality = max(fits)
    return (quality, fit, early) if quality > 0 else None


def _media_type(header: str | None) -> str:
    return (header or "").split(";")[0].strip().lower()
