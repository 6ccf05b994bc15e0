"""gRPC: TorchServe's own inference service, with true status codes and real progress; the standard health service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing
from functools import partial
from typing import Any

import grpc
from google.protobuf import empty_pb2
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as health_aio
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from ddpm_api import (
    ApiError,
    EndEvent,
    Error,
    ErrorBody,
    ErrorEvent,
    GenerateRequest,
    Rendering,
    choose,
    parse_form,
)
from ddpm_service.errors import ServiceError
from ddpm_service.gateway import grpc_messages
from ddpm_service.gateway.auth import Caller
from ddpm_service.gateway.door import Door
from ddpm_service.gateway.grpc_bounds import OPTIONS, Bounded, few_heaps, give_memory_back, host_of, read
from ddpm_service.gateway.grpc_messages import POOL, SERVICE, Prediction, prediction, read_prediction
from ddpm_service.gateway.limits import Turns
from ddpm_service.gateway.logs import log, request_id

Context = grpc.aio.ServicerContext[bytes, bytes]

_LONGEST_ANSWER = 64 * 2**20
# gRPC tells the length of a message only when all of it is there. So each message that is being read counts as the
# longest allowed, and only so many are read at one time. The others stay with their senders.
_READERS = 4
# A call that brings nothing looks like one that brings it slowly; it may do so while nobody waits for its reader.
_PATIENCE_SECONDS = 5.0
_EVENTS = "application/x-ndjson"
_EITHER = {"", "*/*"}
_LOOK_SECONDS = 0.2
_GRACE_SECONDS = 2.0
_TRIM_SECONDS = 2.0
_CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


LARGE = frozenset({f"/{SERVICE}/Predictions", f"/{SERVICE}/StreamPredictions"})
"""Methods that take a selfie: they ask for a token, count the memory and limit the time by the gate's own rules."""
OPEN = frozenset({f"/{SERVICE}/Ping", f"/{HEALTH}/Check", f"/{HEALTH}/Watch"})
"""Methods that tell health to whom no token was given; no others do without one."""


class GrpcDoor:
    """The front door's gRPC port, in the running event loop; it goes through the same gate as HTTP.

    An error is its status code, with the error's JSON as the details and `retry-after` in the trailing metadata.

    Args:
        door: the parts of the front door.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._readers = Turns(_READERS, _PATIENCE_SECONDS)
        self._health = health_aio.HealthServicer()
        self._following: asyncio.Task[None] | None = None
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str) -> int:
        """Take requests at `host:port` (port 0 for a free one) or `unix:path`; return the port.

        Raises:
            ServiceError: the address cannot be listened on.
        """
        few_heaps()
        server = grpc.aio.server(
            interceptors=[Bounded(self._door.gate, large=LARGE, open_to_all=OPEN)],
            options=[
                *OPTIONS,
                ("grpc.max_receive_message_length", self._door.settings.max_bytes),
                ("grpc.max_send_message_length", _LONGEST_ANSWER),
                # Without this, a second service could take the same port, and would get half of the connections.
                ("grpc.so_reuseport", 0),
                # So a client that vanished is noticed, and proxies see life while a request waits.
                ("grpc.keepalive_time_ms", round(self._door.settings.heartbeat_seconds * 1000)),
                ("grpc.http2.max_pings_without_data", 0),
            ],
        )
        methods: dict[str, grpc.RpcMethodHandler[Any, bytes]] = {
            "Ping": grpc.unary_unary_rpc_method_handler(self._ping, empty_pb2.Empty.FromString),
            # On the wire one message is a stream of one. As a stream, no message is read before its sender is known.
            "Predictions": grpc.stream_stream_rpc_method_handler(partial(self._serve, whole=True)),
            "StreamPredictions": grpc.stream_stream_rpc_method_handler(partial(self._serve, whole=False)),
        }
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, methods)])
        add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((SERVICE, HEALTH, reflection.SERVICE_NAME), server, POOL)
        try:
            port = server.add_insecure_port(address)
        except RuntimeError:
            raise ServiceError(f"cannot listen on {address} for gRPC") from None
        await self._tell_health()
        await server.start()
        self._server, self._following = server, asyncio.create_task(self._follow())
        return port

    async def stop(self, grace: float = _GRACE_SECONDS) -> None:
        """Take no calls any more; cut what still runs after `grace` seconds. The gate is drained before."""
        if self._server is None or self._following is None:
            return
        self._following.cancel()
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)

    async def _follow(self) -> None:
        """Keep the health service at the readiness of the front door, also for those who watch it."""
        trimmed = time.monotonic()
        while True:
            await self._tell_health()
            await asyncio.sleep(_LOOK_SECONDS)
            if time.monotonic() - trimmed > _TRIM_SECONDS:
                await asyncio.to_thread(give_memory_back)
                trimmed = time.monotonic()

    async def _tell_health(self) -> None:
        states = health_pb2.HealthCheckResponse
        for name in ("", SERVICE):
            await self._health.set(name, states.SERVING if self._door.ready else states.NOT_SERVING)

    async def _ping(self, _message: empty_pb2.Empty, _context: Context) -> bytes:
        return grpc_messages.health('{"status": "%s"}' % ("Healthy" if self._door.ready else "Unhealthy"))

    async def _serve(self, _messages: AsyncIterator[bytes], context: Context, *, whole: bool) -> None:
        """Answer one call, by one message or one for each event."""
        sent = dict(context.invocation_metadata() or ())
        identity = request_id(_text(sent.get("x-request-id")))
        began, outcome = time.monotonic(), "CANCELLED"
        try:
            await context.send_initial_metadata((("x-request-id", identity),))
            error = await self._attempt(context, _text(sent.get("authorization")), identity, whole=whole)
            outcome = "OK" if error is None else _code(error).name
        finally:
            path = f"/{SERVICE}/{'Predictions' if whole else 'StreamPredictions'}"
            seconds = round(time.monotonic() - began, 4)
            line = {"method": "gRPC", "path": path, "status": outcome, "seconds": seconds}
            log.info("request", extra={"request_id": identity, **line})
        if error is not None:
            trailing = () if error.retry_after is None else (("retry-after", str(error.retry_after)),)
            await context.abort(_code(error), ErrorBody(error=error).to_json().decode(), trailing)

    async def _attempt(
        self, context: Context, authorization: str | None, identity: str, *, whole: bool
    ) -> Error | None:
        """Answer one call; return why it failed, after everything that was held for it is free."""
        try:
            with ExitStack() as held:
                caller = held.enter_context(self._door.gate.admit(authorization, host_of(context.peer())))
                asked = read_prediction(await self._read(context, held, caller))
                await self._answer(asked, context, identity, whole=whole)
        except ApiError as refusal:
            return refusal.error
        except Exception:
            log.exception("a request failed", extra={"request_id": identity})
            return Error(code="internal", message="The service failed on this request; it may be tried again.")
        return None

    async def _read(self, context: Context, held: ExitStack, caller: Caller) -> bytes:
        """The call's one message; the memory for it is counted until `held` closes."""
        seconds = self._door.settings.upload_seconds
        try:
            async with asyncio.timeout(seconds), self._readers.turn(caller):
                limits, longest = self._door.gate.limits, self._door.settings.max_bytes
                upload = held.enter_context(limits.upload(longest, caller))
                upload.hold(longest)  # gRPC takes a message whole
                message = await read(context) or b""
        except TimeoutError:
            text = "The request's message did not arrive in time."
            raise ApiError(Error(code="upload_timeout", message=text, allowed=f"{seconds:g} seconds")) from None
        upload.hold(len(message))
        return message

    async def _answer(self, asked: Prediction, context: Context, identity: str, *, whole: bool) -> None:
        request, rendering = _understood(asked, whole=whole)
        parts: list[bytes] = []
        # A cancelled call and one past its deadline cancel this task, which closes the events and frees their place.
        asking = self._door.gate.generate(asked.model, asked.version, request, identity, progress=rendering.streams)
        async with aclosing(asking) as events:
            async for event in events:
                if isinstance(event, ErrorEvent):
                    raise ApiError(event.error)
                if isinstance(event, EndEvent) and not rendering.streams:
                    # A contact sheet of large pictures takes a while.
                    part = await asyncio.to_thread(rendering.feed, event)
                else:
                    part = rendering.feed(event)
                if whole:
                    parts.append(part)
                elif part:
                    await self._send(context, part)
        if whole:
            await self._send(context, b"".join(parts))

    async def _send(self, context: Context, content: bytes) -> None:
        seconds = self._door.settings.stalled_seconds
        try:
            async with asyncio.timeout(seconds):
                await context.write(prediction(content))
        except TimeoutError:
            text = "The answer was not read in time."
            raise ApiError(Error(code="timeout", message=text, allowed=f"{seconds:g} seconds")) from None


def _understood(asked: Prediction, *, whole: bool) -> tuple[GenerateRequest, Rendering]:
    """The request in the fields of a call, and how it is answered.

    Raises:
        InvalidRequest: whatever is wrong with it.
    """
    fields = dict(asked.fields)
    accept = fields.pop("accept", b"").decode("latin-1").strip()
    if not whole and accept in _EITHER:
        accept = _EVENTS
    request = parse_form(fields)
    rendering = choose(accept or None, None, "grpc", request=request)
    if rendering.output_format != request.output_format:
        # Encoded as the answer wants it, one picture can go out as it is.
        request = request.model_copy(update={"output_format": rendering.output_format})
    return request, rendering


def _code(error: Error) -> grpc.StatusCode:
    if error.code == "busy":
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    return _CODES.get(error.status, grpc.StatusCode.INVALID_ARGUMENT)


def _text(value: str | bytes | None) -> str | None:
    return value.decode("latin-1") if isinstance(value, bytes) else value
