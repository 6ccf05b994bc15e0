"""What TorchServe hands over of one request, read as the contract has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ddpm_api import GenerateRequest, Rendering, choose, parse_form, parse_json, parse_raw, read_json

_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")


@dataclass(frozen=True)
class Arrival:
    """A request that keeps the contract, and how it wants its answer.

    Attributes:
        request: what is asked for.
        rendering: how it is answered.
        progress: whether a stream tells of each step (`Prefer: return=minimal`, RFC 7240, says no).
        caller: who is charged; None for those who ask here.
    """

    request: GenerateRequest
    rendering: Rendering
    progress: bool = True
    caller: str | None = None


def over_grpc(headers: Mapping[str, Any]) -> bool:
    """Whether it came over TorchServe's gRPC: each field of the input shows up as a dict, and no header as text."""
    return not any(isinstance(value, str) for value in headers.values())


def asks_to_describe(headers: Mapping[str, Any]) -> bool:
    """Whether TorchServe's management API asks for a description: this comes to the handler as a request."""
    return header(headers, "describe") == "True"


def read(fields: Mapping[str, Any], headers: Mapping[str, Any]) -> Arrival:
    """Read a request.

    Args:
        fields: `data[i]`, not decoded by TorchServe: the fields of a form or of a gRPC input, else `body`.
        headers: `ctx.get_all_request_header(i)`, names in the client's own case.

    Raises:
        InvalidRequest: it breaks the contract, or nothing on offer is accepted.
    """
    if over_grpc(headers):
        # gRPC has no headers here: a field says which rendering is wanted.
        form = {name: value for name, value in fields.items() if name != "accept"}
        accept = bytes(fields.get("accept", b"")).decode("latin-1") or None
        request = parse_form(form)
        return Arrival(request, choose(accept, None, "grpc", request=request))
    content_type = header(headers, "content-type")
    request = _parse(fields, (content_type or "").split(";")[0].strip().lower())
    progress = header(headers, "prefer") != "return=minimal"
    rendering = choose(header(headers, "accept"), content_type, request=request)
    return Arrival(request, rendering, progress, header(headers, "x-ddpm-caller"))


def request_id(headers: Mapping[str, Any], default: str) -> str:
    """Give the client's own `X-Request-Id` where it is harmless, else `default`."""
    given = header(headers, "x-request-id")
    return given if given and _REQUEST_ID.fullmatch(given) else default


def header(headers: Mapping[str, Any], name: str) -> str | None:
    """Give a header by its lower-case name."""
    return next((value for key, value in headers.items() if isinstance(value, str) and key.lower() == name), None)


def _parse(fields: Mapping[str, Any], media_type: str) -> GenerateRequest:
    # A form without any field is empty or malformed, whatever its type says.
    if not fields or media_type in _FORMS:
        return parse_form(fields)
    body = fields["body"]
    if media_type == "application/json":
        return parse_json(read_json(body))
    return parse_raw(body)  # whatever it calls itself: its first bytes say what it is
