"""The client that is awaited, on `aiohttp`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

from ddpm_api import Event, ImageLike, Result, ResultBuilder
from ddpm_service.client import protocol
from ddpm_service.client.protocol import DEFAULT_MODEL, Ask, Events, Unreachable

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=protocol.CONNECT_SECONDS, sock_read=protocol.SILENCE_SECONDS)


class AsyncClient:
    """`Client` for asyncio. An asynchronous context manager; many requests may run on one at once.

    Args:
        url: such as `http://127.0.0.1:8000`.
        token: the API token, where the service wants one.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._headers = protocol.HEADERS | ({} if token is None else {"Authorization": f"Bearer {token}"})
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; what still runs on one is given up by the service."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def generate(
        self,
        image: ImageLike | None = None,
        *,
        model: str = DEFAULT_MODEL,
        version: str | None = None,
        **fields: Any,
    ) -> Result:
        """Make faces and wait for all of them; arguments and errors are those of `Client.generate`."""
        builder = ResultBuilder()
        async with aclosing(self.stream(image, model=model, version=version, **fields)) as events:
            async for event in events:
                builder.feed(event)
        return builder.result()

    async def stream(
        self,
        image: ImageLike | None = None,
        *,
        model: str = DEFAULT_MODEL,
        version: str | None = None,
        **fields: Any,
    ) -> AsyncGenerator[Event, None]:
        """Make faces and hear of each event as it happens; the last one is `end`.

        Closing the iterator (`contextlib.aclosing`), or cancelling the task, closes the connection, and the service
        stops working on it. Arguments and errors are those of `Client.generate`; an `error` event is raised.
        """
        ask = await asyncio.to_thread(Ask.of, self.url, image, model, version, fields)
        async with await self._post(ask) as response:
            if not protocol.is_stream(response.status, response.headers):
                raise protocol.refusal(ask, response.status, response.reason, response.headers, await _read(response))
            events = Events(ask)
            try:
                async for some in response.content.iter_any():
                    for event in events.feed(some):
                        yield event
            except (aiohttp.ClientError, TimeoutError):
                pass  # a broken connection ends the answer
            events.close()

    async def _post(self, ask: Ask) -> aiohttp.ClientResponse:
        """Post it; again only where nothing has been done: no connection was made, or 503 came with `Retry-After`."""
        refused = busy = 0
        while True:
            try:
                response = await self._send(ask)
            except aiohttp.ClientConnectorError:
                if refused == protocol.CONNECT_RETRIES:
                    raise Unreachable(ask.url, protocol.NOT_REACHED) from None
                await asyncio.sleep(protocol.BACKOFF_SECONDS * 2**refused)
                refused += 1
                continue
            except TimeoutError:
                raise Unreachable(ask.url, protocol.TIMED_OUT) from None
            except aiohttp.ClientConnectionError:
                raise Unreachable(ask.url, protocol.NOT_REACHED) from None
            except (aiohttp.ClientError, ValueError):
                raise Unreachable(ask.url, protocol.NO_ADDRESS) from None
            after = protocol.retry_after(response.headers)
            if response.status != 503 or after is None or busy == protocol.RETRIES:
                return response
            busy += 1
            response.release()
            await asyncio.sleep(after)

    async def _send(self, ask: Ask) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True)
        body: dict[str, Any] = {"json": ask.fields}
        if ask.picture is not None:
            form = aiohttp.FormData(ask.texts)
            # a constant name: the file's own is nobody's business
            form.add_field("image", ask.picture, filename="image", content_type="application/octet-stream")
            body = {"data": form}
        where = URL(ask.url, encoded=True)
        return await self._session.post(where, **body, headers=self._headers, allow_redirects=False)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await response.read()
    except (aiohttp.ClientError, TimeoutError):
        return b""
