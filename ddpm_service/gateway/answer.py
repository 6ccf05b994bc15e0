"""Events as an HTTP response: what is sent when, and what happens when the client leaves or reads nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import ExitStack, aclosing
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ddpm_api import EndEvent, Error, ErrorBody, ErrorEvent, Event, ImageEvent, Result, ResultBuilder
from ddpm_service.gateway.protocol import ABORT
from ddpm_service.gateway.settings import Settings


class Renders(Protocol):
    """How events become bytes; `ddpm_api.Rendering` is one."""

    @property
    def streams(self) -> bool:
        """Whether bytes are sent as they come; else all of them at the end."""

    @property
    def heartbeat(self) -> bytes:
        """What may be sent at any time, b"" for nothing."""

    status: int
    content_type: str
    retry_after: int | None

    def feed(self, event: Event) -> bytes:
        """The bytes to send for the next event, b"" for none."""


class Whole(Renders):
    """One JSON document at the end, in a route's own shape.

    Args:
        document: what a result becomes.
        error_body: what an error becomes.
    """

    streams = False
    heartbeat = b""

    def __init__(self, document: Callable[[Result], Mapping[str, Any]], error_body: Callable[[Error], bytes]) -> None:
        self.status, self.content_type = 200, "application/json"
        self.retry_after: int | None = None
        self._document, self._error_body = document, error_body
        self._builder = ResultBuilder()

    def feed(self, event: Event) -> bytes:
        """The bytes to send for the next event."""
        self._builder.feed(event)
        if isinstance(event, ErrorEvent):
            self.status, self.retry_after = event.error.status, event.error.retry_after
            return self._error_body(event.error)
        return json.dumps(self._document(self._builder.result())).encode() if isinstance(event, EndEvent) else b""


class EventAnswer(Response):
    """The answer to a request for pictures. The client leaving closes the events, which frees their place.

    Args:
        events: they end by `end` or `error`.
        rendering: what they become.
        settings: heartbeat and patience.
        held: what is held for this request; closed when the answer is over.
    """

    def __init__(
        self, events: AsyncGenerator[Event, None], rendering: Renders, settings: Settings, held: ExitStack
    ) -> None:
        self.background = None
        self._events = events
        self._rendering = rendering
        self._settings = settings
        self._held = held
        self._begun = self._ended = False
        self._sending = asyncio.Lock()
        self._last = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it (ASGI)."""
        with self._held:
            pump = asyncio.ensure_future(self._pump(send))
            tasks = {pump, asyncio.ensure_future(_left(receive))}
            if self._rendering.streams:
                tasks.add(asyncio.ensure_future(self._beat(send)))
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                # Until the events are closed, the place of this request is not free.
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, TimeoutError):
                if abort := scope.get("extensions", {}).get(ABORT):  # another server leaves the client by itself
                    abort()
            elif isinstance(outcome, Exception):
                raise outcome

    async def _pump(self, send: Send) -> None:
        rendering, images = self._rendering, 0
        async with aclosing(self._events) as events:
            async for event in events:
                images += isinstance(event, ImageEvent)
                if isinstance(event, EndEvent) and not rendering.streams and images > 1:
                    # A contact sheet of large pictures takes a while.
                    data = await asyncio.to_thread(rendering.feed, event)
                else:
                    data = rendering.feed(event)
                last = isinstance(event, EndEvent | ErrorEvent)
                if data or last:
                    await self._put(send, data, more=not last)

    async def _beat(self, send: Send) -> None:
        """Break every silence of a stream that has begun."""
        seconds = self._settings.heartbeat_seconds
        while True:
            await asyncio.sleep(max(0.0, self._last + seconds - time.monotonic()) if self._begun else seconds / 10)
            if self._begun and time.monotonic() - self._last >= seconds:
                await self._put(send, self._rendering.heartbeat, more=True)

    async def _put(self, send: Send, data: bytes, *, more: bool) -> None:
        async with self._sending:
            if self._ended:
                return
            if not self._begun:
                # Status and type are final only now: an error that comes first has its own.
                await self._message(send, self._start(data))
            await self._message(send, {"type": "http.response.body", "body": data, "more_body": more})
            self._begun, self._ended, self._last = True, not more, time.monotonic()

    def _start(self, data: bytes) -> Message:
        rendering = self._rendering
        headers = {"content-type": rendering.content_type, "x-accel-buffering": "no"}
        if rendering.retry_after is not None:
            headers["retry-after"] = str(rendering.retry_after)
        if not rendering.streams or rendering.status != 200:
            headers["content-length"] = str(len(data))
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        return {"type": "http.response.start", "status": rendering.status, "headers": raw}

    async def _message(self, send: Send, message: Message) -> None:
        async with asyncio.timeout(self._settings.stalled_seconds):
            await send(message)


def error_answer(error: Error, body: bytes | None = None) -> Response:
    """The answer to a request that is refused before any event."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.code == "unauthorized":
        headers["WWW-Authenticate"] = "Bearer"
    content = body or ErrorBody(error=error).to_json()
    return Response(content, error.status, headers, media_type="application/json")


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
