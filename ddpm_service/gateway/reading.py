"""An HTTP request's body, held in memory alone and bounded, as a request of the contract."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import ExitStack
from typing import Any, TypeVar

from starlette.datastructures import QueryParams, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ddpm_api import ApiError, Error, GenerateRequest, InvalidRequest, parse_form, parse_json, parse_raw
from ddpm_api.errors import shown_name
from ddpm_service.gateway.limits import Limits, too_large
from ddpm_service.gateway.settings import Settings

JSON = "application/json"
FORM = "multipart/form-data"
TAKEN = f"image/*, application/octet-stream, {FORM}, {JSON}"
# Decoding a longer body takes so long that it must not stop everybody else.
_LONG_BODY = 2**20
_MOST_FIELDS = 64

T = TypeVar("T")


async def read_body(request: Request, limits: Limits, settings: Settings, held: ExitStack) -> bytes:
    """The whole body; the memory for it is counted until ``held`` closes.

    Raises:
        ApiError: too long, too slow (``upload_timeout``), or too much is held already.
        ClientDisconnect: the client left.
    """
    announced = request.headers.get("content-length")
    upload = held.enter_context(limits.upload(int(announced) if announced else None))
    body = bytearray()
    try:
        async with asyncio.timeout(settings.upload_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > settings.max_bytes:
                    raise too_large(len(body), settings.max_bytes)
    except TimeoutError:
        allowed = f"{settings.upload_seconds:g} seconds"
        message = "The request's body did not arrive in time."
        raise ApiError(Error(code="upload_timeout", message=message, allowed=allowed)) from None
    upload.settle(len(body))
    return bytes(body)


async def read_request(request: Request, body: bytes) -> GenerateRequest:
    """What the body asks for, by its content type.

    Raises:
        InvalidRequest: whatever is wrong with it.
    """
    media = media_type(request)
    if media in {"", "application/octet-stream"} or media.startswith("image/"):
        return await aside(body, lambda: parse_raw(body, single(request.query_params)))
    if media not in {JSON, FORM}:
        raise unsupported(media)
    if request.query_params:
        names = ", ".join(request.query_params)
        message = "Query parameters go with a picture as the body only."
        raise InvalidRequest("conflict", message, field="query", given=names, allowed="fields in the body")
    if media == JSON:
        return await aside(body, lambda: parse_json(read_json(body)))
    return parse_form(await read_form(request, body))


def read_json(body: bytes) -> Any:
    """The parsed document, or the bytes themselves where they are none, as TorchServe hands them on."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body


async def read_form(request: Request, body: bytes) -> dict[str, str | bytes]:
    """The fields of a multipart form, files as bytes; empty where it is malformed.

    Raises:
        InvalidRequest: a field is given twice.
    """
    fields: dict[str, str | bytes] = {}
    try:
        form = await _InMemory(request.headers, _once(body), max_files=_MOST_FIELDS, max_fields=_MOST_FIELDS).parse()
    except (MultiPartException, KeyError):
        return {}
    try:
        for name, value in form.multi_items():
            if name in fields:
                raise _twice(name)
            fields[name] = await value.read() if isinstance(value, UploadFile) else value
    finally:
        await form.close()
    return fields


def single(query: QueryParams) -> Mapping[str, str]:
    """The query's parameters.

    Raises:
        InvalidRequest: one is given twice.
    """
    given: dict[str, str] = {}
    for name, value in query.multi_items():
        if name in given:
            raise _twice(name)
        given[name] = value
    return given


async def aside(body: bytes, parse: Callable[[], T]) -> T:
    """Parse here, or in a thread where it would take long."""
    return parse() if len(body) < _LONG_BODY else await asyncio.to_thread(parse)


def media_type(request: Request) -> str:
    """The request's content type without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def unsupported(media: str) -> InvalidRequest:
    """The refusal of a content type; the usual slip with curl is named."""
    hint = ""
    if media == "application/x-www-form-urlencoded":
        hint = " With curl, send -F image=@FILE, or --data-binary @FILE -H 'Content-Type: image/jpeg'."
    message = f"This content type is not taken.{hint}"
    return InvalidRequest("unsupported_media_type", message, field="Content-Type", given=media, allowed=TAKEN)


class _InMemory(MultiPartParser):
    """Starlette's parser, which must never write a face into a temporary file; the body is bounded already."""

    spool_max_size = sys.maxsize

    def __init__(self, *parts: Any, **settings: Any) -> None:
        super().__init__(*parts, max_part_size=sys.maxsize, **settings)


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


def _twice(name: str) -> InvalidRequest:
    return InvalidRequest("conflict", "A field is given twice.", field=shown_name(name), allowed="each field once")
