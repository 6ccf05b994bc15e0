"""gRPC's methods behind bounds: all of them together, and the small ones (ping, health, reflection) each by itself."""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import unquote
from weakref import WeakValueDictionary

import grpc

from ddpm_api import ApiError, ErrorBody
from ddpm_service.gateway.auth import anonymous
from ddpm_service.gateway.gate import Gate
from ddpm_service.gateway.limits import Places, Turns

# Of all connections together. A call holds what it may send ahead (`OPTIONS`) and some more, so this bounds memory too:
# gRPC's own quota of it cannot be reached from Python.
_CALLS = 2000
LONGEST = 4096
"""Bytes of a message of theirs."""
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's malloc.h
_ALONE = 256 * 2**10
# gRPC tells the length of a message only when all of it is there, and has one limit for all methods. So only a few
# messages are read at one time, one of each connection. The others wait for their turn.
_READERS = 2
_READ_SECONDS = 1.0
_TURN_SECONDS = 5.0
_CALL_SECONDS = 10.0
# A client that wants to watch for longer asks again.
_WATCH_SECONDS = 3600.0

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Details = grpc.HandlerCallDetails
Context = grpc.aio.ServicerContext[Any, Any]
Serve: TypeAlias = Callable[[AsyncIterator[bytes], Context], Awaitable[None]]

OPTIONS = (
    # gRPC holds what clients send ahead. These bound the bytes of a call and the calls of a connection.
    ("grpc.http2.lookahead_bytes", 16 * 2**10),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_concurrent_streams", 200),
    ("grpc.max_allowed_incoming_connections", 512),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),
)
"""A server's options that bound what connections hold."""


class Bounded(grpc.aio.ServerInterceptor):
    """So many calls at one time; before every method that is not named here a token, a time limit and `LONGEST`.

    A message is read once its call has been let in, those of small methods a few at one time.

    Args:
        gate: knows the tokens.
        large: methods that see to all of this themselves.
        open_to_all: methods that need no token.
    """

    def __init__(self, gate: Gate, *, large: Collection[str], open_to_all: Collection[str]) -> None:
        self._gate = gate
        self._large = frozenset(large)
        self._open = frozenset(open_to_all)
        self._calls = Places(_CALLS)
        self._readers = Turns(_READERS)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Give the method's handler, bounded."""
        handler = await continuation(details)
        if handler is None:
            return None
        large = details.method in self._large
        serve: Serve = _behaviour(handler) if large else partial(self._small, handler, details.method)
        # All methods are served as streams: no message is read before somebody asks for it.
        return grpc.stream_stream_rpc_method_handler(partial(self._serve, serve))

    async def _serve(self, serve: Serve, messages: AsyncIterator[bytes], context: Context) -> None:
        with ExitStack() as held:
            try:
                held.enter_context(self._calls.place(anonymous(host_of(context.peer()))))
            except ApiError as refusal:
                details = ErrorBody(error=refusal.error).to_json().decode()
                trailing = (("retry-after", str(refusal.error.retry_after)),)
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, details, trailing)
            await serve(messages, context)

    async def _small(self, handler: Handler, method: str, _messages: AsyncIterator[bytes], context: Context) -> None:
        if method not in self._open:
            sent = dict(context.invocation_metadata() or ())
            try:
                self._gate.identify(str(sent.get("authorization", "")))
            except ApiError as refusal:
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, refusal.error.message)
        told = _Told(context, handler.response_serializer)
        streams = handler.request_streaming or handler.response_streaming
        try:
            async with asyncio.timeout(_WATCH_SECONDS if streams else _CALL_SECONDS):
                requests = self._requests(handler, context)
                asked = requests if handler.request_streaming else await _only(requests, context)
                answers = _behaviour(handler)(asked, told)
                if hasattr(answers, "__aiter__"):
                    async for answer in answers:
                        await told.write(answer)
                elif (answer := await answers) is not None:
                    await told.write(answer)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "The message did not arrive in time.")

    async def _requests(self, handler: Handler, context: Context) -> AsyncIterator[Any]:
        while True:
            message = await self._read(context)
            if message is None:
                return
            if len(message) > LONGEST:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"Messages here have at most {LONGEST} bytes.")
            try:
                request = handler.request_deserializer(message) if handler.request_deserializer else message
            except Exception:  # protobuf's own kinds of error vary by its implementation
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The message is malformed.")
            yield request

    async def _read(self, context: Context) -> bytes | None:
        """The next message, None where its sender has no more."""
        peer = context.peer()
        turn = self._turns.setdefault(peer, asyncio.Lock())
        async with AsyncExitStack() as held:
            async with asyncio.timeout(_TURN_SECONDS):
                await held.enter_async_context(turn)
                await held.enter_async_context(self._readers.turn(anonymous(host_of(peer))))
            async with asyncio.timeout(_READ_SECONDS):
                return await read(context)


class _Told:
    """A call's context for a handler whose answers are not bytes yet."""

    def __init__(self, context: Context, serialize: Callable[[Any], bytes] | None) -> None:
        self._context = context
        self._serialize = serialize

    async def write(self, answer: Any) -> None:
        await self._context.write(self._serialize(answer) if self._serialize else answer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


async def read(context: Context) -> bytes | None:
    """Give a call's next message, None where there is none.

    Not by gRPC's iterator: that keeps the message, in a ring of references, until garbage is collected.
    """
    message = await context.read()
    return message if isinstance(message, bytes) else None


async def _only(requests: AsyncIterator[Any], context: Context) -> Any:
    request = await anext(aiter(requests), None)
    if request is None:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "There is no message.")
    return request


def _behaviour(handler: Handler) -> Callable[[Any, Any], Any]:
    """What the handler calls, whichever of the four shapes it has."""
    behaviours = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
    return next(each for each in behaviours if each is not None)


def host_of(peer: str) -> str:
    """The IP address in gRPC's name of a client, such as `ipv6:%5B::1%5D:40000`; another kind's is none."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")


def few_heaps() -> None:
    """Let all threads of this process share two heaps, and whatever is large lie outside of them.

    glibc makes up to eight heaps a core, and each keeps its own gaps; and once a large message is freed, it puts the
    next ones as large into the heaps, where they leave gaps as well.
    """
    if sys.platform == "linux":
        limit = getattr(ctypes.CDLL(None), "mallopt", None)
        if limit is not None:
            limit(_M_ARENA_MAX, 2)
            limit(_M_MMAP_THRESHOLD, _ALONE)


def give_memory_back() -> None:
    """Return to the system what gRPC's threads have freed: glibc keeps it, a heap a thread."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
