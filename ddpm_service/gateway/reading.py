"""An HTTP request's body, held in memory alone and bounded, as a request of the contract."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TypeVar
from urllib.parse import parse_qsl

from starlette.requests import Request

from ddpm_api import ApiError, Error, GenerateRequest, InvalidRequest, parse_form, parse_json, parse_raw, read_json
from ddpm_api.errors import shown_name
from ddpm_service.gateway.auth import Caller
from ddpm_service.gateway.limits import Limits, too_large
from ddpm_service.gateway.parts import read_parts
from ddpm_service.gateway.settings import Settings

JSON = "application/json"
FORM = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"
TAKEN = f"image/*, application/octet-stream, {FORM}, {JSON}"
# A longer body is decoded in a thread, or all other requests would wait.
_LONG_BODY = 2**20
# Honest forms without files are short. A body of 32 MiB with many fields takes seconds to decode, and meanwhile
# Python's lock stops all other requests.
_LONGEST_URLENCODED = 2**16
_MOST_FIELDS = 64
_CODINGS = {"", "identity", "gzip", "x-gzip", "deflate"}
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
# A body may pause so long; it holds memory that others want.
_STALL_SECONDS = 5.0

T = TypeVar("T")


async def read_body(request: Request, limits: Limits, settings: Settings, held: ExitStack, caller: Caller) -> bytes:
    """The whole body, decompressed; the memory for it is counted until `held` closes.

    Raises:
        ApiError: compressed in a way that is not taken, too long, too slow (`upload_timeout`), or too much is held
            already.
        ClientDisconnect: the client left.
    """
    coding = _coding(request)
    announced = request.headers.get("content-length")
    upload = held.enter_context(limits.upload(int(announced) if announced else 0, caller))
    body = bytearray()
    now = asyncio.get_running_loop().time
    end = now() + settings.upload_seconds
    try:
        async with asyncio.timeout_at(min(now() + _STALL_SECONDS, end)) as patience:
            async for chunk in request.stream():
                # Bytes buy time, but none in advance: who has sent all but the last one is not waited for either.
                bought = (patience.when() or end) + len(chunk) / settings.min_upload_rate
                patience.reschedule(min(bought, now() + _STALL_SECONDS, end))
                body += chunk
                if len(body) > settings.max_bytes:
                    raise too_large(len(body), settings.max_bytes)
                upload.hold(len(body))
    except TimeoutError:
        allowed = f"{settings.upload_seconds:g} seconds, {settings.min_upload_rate} bytes a second"
        message = "The request's body did not arrive in time."
        raise ApiError(Error(code="upload_timeout", message=message, allowed=allowed)) from None
    if not coding:
        return bytes(body)
    plain = await aside(body, lambda: _decompressed(body, settings.max_bytes))
    upload.hold(len(plain))
    return plain


def _coding(request: Request) -> str:
    """How the body is compressed, "" for not."""
    coding = request.headers.get("content-encoding", "").strip().lower()
    if coding not in _CODINGS:
        message = "The body is compressed in a way that is not taken."
        allowed = "gzip, deflate, or none"
        raise InvalidRequest("unsupported_media_type", message, field="Content-Encoding", given=coding, allowed=allowed)
    return "" if coding == "identity" else coding


def _decompressed(body: bytes | bytearray, most: int) -> bytes:
    """What was compressed by gzip or deflate, with or without zlib's head; nothing beyond so many bytes is made."""
    for bits in (_GZIP_OR_ZLIB, -zlib.MAX_WBITS):
        plain, rest = bytearray(), body
        while rest:  # gzip may come in several members
            decoder = zlib.decompressobj(bits)
            try:
                plain += decoder.decompress(rest, most + 1 - len(plain))
            except zlib.error:
                break
            if len(plain) > most:
                raise too_large(len(plain), most)
            if not decoder.eof:
                break
            rest = decoder.unused_data
        else:
            return bytes(plain)
    message = "The body is not what its Content-Encoding says, or not whole."
    raise InvalidRequest("malformed_body", message, field="Content-Encoding")


async def read_request(request: Request, body: bytes) -> GenerateRequest:
    """What the body asks for. Whatever is neither JSON nor a form is a picture: its own bytes tell its type.

    Raises:
        InvalidRequest: whatever is wrong with it.
    """
    media = media_type(request)
    if media not in {JSON, FORM, URLENCODED}:
        if body.lstrip()[:1] in (b"{", b"["):
            raise unsupported(media, TAKEN, " This is JSON: send it with Content-Type: application/json.")
        return await aside(body, lambda: parse_raw(body, single(request.query_params.multi_items())))
    if request.query_params:
        names = ", ".join(request.query_params)
        message = "Query parameters go with a picture as the body only."
        raise InvalidRequest("conflict", message, field="query", given=names, allowed="fields in the body")
    if media == JSON:
        return await aside(body, lambda: parse_json(read_json(body)))
    return parse_form(await read_form(request, body) if media == FORM else _read_urlencoded(body))


async def read_form(request: Request, body: bytes) -> dict[str, str | bytes]:
    """The fields of a multipart form, files as bytes; empty where it is malformed.

    Raises:
        InvalidRequest: a field is given twice.
    """
    return single(await form_parts(request, body))


async def form_parts(request: Request, body: bytes) -> list[tuple[str, str | bytes]]:
    """The parts of a multipart form in their order, as `read_parts` gives them."""
    return await aside(body, lambda: read_parts(request.headers["content-type"], body))


def single(pairs: Iterable[tuple[str, T]]) -> dict[str, T]:
    """Names and values, each name once.

    Raises:
        InvalidRequest: one is given twice.
    """
    given: dict[str, T] = {}
    for name, value in pairs:
        if name in given:
            message = "A field is given twice."
            raise InvalidRequest("conflict", message, field=shown_name(name), allowed="each field once")
        given[name] = value
    return given


@contextmanager
def named_as(names: Mapping[str, str]) -> Iterator[None]:
    """Tell what is refused inside under the names that its sender knows, by the contract's."""
    try:
        yield
    except ApiError as refusal:
        error = refusal.error
        if error.field is None or error.field not in names:
            raise
        own = names[error.field]
        message = error.message.replace(error.field, own, 1)
        raise ApiError(error.model_copy(update={"field": own, "message": message})) from None


async def aside(body: bytes | bytearray, parse: Callable[[], T]) -> T:
    """Parse here, or in a thread where it would take long."""
    return parse() if len(body) < _LONG_BODY else await asyncio.to_thread(parse)


def media_type(request: Request) -> str:
    """The request's content type without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def unsupported(media: str, allowed: str, hint: str = "") -> InvalidRequest:
    """The refusal of a content type, by a route that takes others."""
    message = f"This content type is not taken.{hint}"
    return InvalidRequest("unsupported_media_type", message, field="Content-Type", given=media, allowed=allowed)


def _read_urlencoded(body: bytes) -> dict[str, str]:
    """The fields of a form without files; a picture sent as one, the usual slip with curl, is told how to mend it."""
    if len(body) > _LONGEST_URLENCODED or not body.isascii():
        hint = " With curl, send -F image=@FILE, or --data-binary @FILE -H 'Content-Type: image/jpeg'."
        raise unsupported(URLENCODED, TAKEN, hint)
    try:
        pairs = parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        return {}
    return single(pairs)
