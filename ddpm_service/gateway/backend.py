"""The one seam to what makes the pictures. REST, server-sent events, OpenAI images and gRPC all stand on it."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp
from pydantic import ValidationError
from urllib3 import encode_multipart_formdata

from ddpm_api import EndEvent, Error, ErrorBody, ErrorEvent, Event, GenerateRequest, parse_event
from ddpm_service.gateway.auth import asking
from ddpm_service.gateway.logs import log
from ddpm_service.torchserve.api import Api
from ddpm_service.torchserve.board import Board, ModelState, State
from ddpm_service.torchserve.pulse import Asked, Key, Pulse

_ACCEPT = "application/x-ndjson"
_CONNECT_SECONDS = 5.0
# Longer than TorchServe's responseTimeout (model-config.yaml): it kills a worker that is silent for so long.
_SILENCE_SECONDS = 150.0
_LONGEST_LINE = 16 * 2**20
_SMALL_BODY = 64 * 2**10
_RETRY_SECONDS = 5
_LOOK_SECONDS = 1.0
_MISSING = 404
_TOO_LARGE = 413
_DIED = b"Worker died"  # what TorchServe says of it


class Backend(Protocol):
    """What the front door needs of whatever makes the pictures."""

    def models(self) -> Mapping[str, ModelState]:
        """Every model and version with its state and `bundle.json`, as of now."""

    def generate(
        self, model: str, version: str | None, request: GenerateRequest, request_id: str, *, progress: bool = True
    ) -> AsyncGenerator[Event, None]:
        """Make faces, event by event; `version` None is the model's default one.

        Without `progress` no step is told of: each costs a chunk through every layer.

        The last event is `end` or `error`: every failure is an event, also an unknown model and a connection that
        breaks. Closing the generator (`aclose`, or cancelling the task that awaits it) gives the work up and frees
        its place within two steps.
        """


class TorchServeBackend:
    """A TorchServe on this machine, asked for events.

    Args:
        url: where it answers predictions, such as `http://127.0.0.1:8080` or `unix:/path`.
        board: what it serves; a version that is lost fails its running requests.
        pulse: told of the signs of life of each version.
    """

    def __init__(self, url: str, board: Board, pulse: Pulse) -> None:
        self._api = Api(url)
        self._board = board
        self._pulse = pulse
        self._session: aiohttp.ClientSession | None = None
        # For each version, functions that end its running requests.
        self._open: dict[Key, set[Callable[[], None]]] = defaultdict(set)

    def models(self) -> Mapping[str, ModelState]:
        """Every model and version with its state."""
        return self._board.models()

    def running(self, model: str, version: str) -> int:
        """Requests that a version works on."""
        return len(self._open.get((model, version), ()))

    def end_lost(self) -> None:
        """End the running requests of versions that died; called in the event loop after a change of the board."""
        for (name, version), ends in list(self._open.items()):
            model = self._board.models().get(name)
            now = model.versions.get(version) if model else None
            # A silent version may still answer.
            if now is None or now.state not in {State.READY, State.SILENT, State.LEAVING}:
                for end in list(ends):
                    end()

    async def close(self) -> None:
        """Give up everything that runs."""
        if self._session is not None:
            await self._session.close()

    async def generate(
        self, model: str, version: str | None, request: GenerateRequest, request_id: str, *, progress: bool = True
    ) -> AsyncGenerator[Event, None]:
        """Make faces; see `Backend.generate`."""
        found = self._find(model, version)
        if isinstance(found, Error):
            yield ErrorEvent(error=found)
            return
        broke_off = _error("unavailable", "The model's worker broke off; ask again.")
        key = (model, found)
        try:
            with self._pulse.asked(key) as asked:
                post = self._post(model, found, request, request_id, progress=progress)
                response = await self._begun(key, asked, post)
                asked.answered()
                try:
                    with self._endable(key, asked, response.close):
                        if response.status != 200:
                            yield ErrorEvent(error=await _refusal(response))
                            return
                        async with aclosing(_lines(response.content, asked)) as lines:
                            async for line in lines:
                                event = parse_event(line)
                                if isinstance(event, ErrorEvent):
                                    event = ErrorEvent(error=_timed(event.error))
                                yield event
                                if isinstance(event, EndEvent | ErrorEvent):
                                    return
                finally:
                    # After an answer that was read to its end the connection serves the next request. Else this
                    # closes it, which cancels the request.
                    response.release()
        except (TimeoutError, aiohttp.ServerTimeoutError):
            broke_off = _error("timeout", "The model's worker has been silent for too long.")
        except (aiohttp.ClientError, ValueError):
            pass
        yield ErrorEvent(error=broke_off)

    async def _begun(self, key: Key, asked: Asked, answer: Awaitable[aiohttp.ClientResponse]) -> aiohttp.ClientResponse:
        """The beginning of an answer.

        Raises:
            ClientError: it does not come: its version is lost, or the request, or the connection.
            TimeoutError: it does not come in time.
        """
        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(None) as waiting:

                def end() -> None:
                    if not waiting.expired():
                        waiting.reschedule(now())

                with self._endable(key, asked, end):
                    return await answer
        except TimeoutError:
            if waiting.expired():
                raise aiohttp.ClientConnectionError from None
            raise

    @contextmanager
    def _endable(self, key: Key, asked: Asked, end: Callable[[], None]) -> Iterator[None]:
        """Have a request ended when its version is lost; or it alone, which is seen when others hear for long.

        TorchServe loses a request without a word when its worker is taken away at the wrong moment. While it loads a
        version one of its few network threads waits for that, and whoever is on it waits too: nobody is lost then.
        """
        loop = asyncio.get_running_loop()
        looked: asyncio.TimerHandle

        def look(*, again: bool = False) -> None:
            nonlocal looked
            if self._board.loads:
                asked.listen_anew()
            is_lost = asked.overtaken > self._pulse.limit(key)
            # What came while the loop stood still is read by the next look.
            if is_lost and again:
                log.error("%s %s: a request got no answer while others did; it is ended", *key)
                end()
            else:
                looked = loop.call_later(_LOOK_SECONDS, partial(look, again=is_lost))

        looked = loop.call_later(_LOOK_SECONDS, look)
        self._open[key].add(end)
        try:
            yield
        finally:
            looked.cancel()
            self._open[key].discard(end)

    def _find(self, name: str, version: str | None) -> str | Error:
        """The version to ask, or why it cannot be asked."""
        models = self.models()
        model = models.get(name)
        if model is None:
            return Error(
                code="not_found",
                message="There is no such model.",
                field="model",
                given=name,
                allowed=", ".join(sorted(models)) or "none is served",
            )
        wanted = version or model.default
        found = model.versions.get(wanted)
        if found is None:
            return Error(
                code="not_found",
                message=f"The model {name} has no such version.",
                field="version",
                given=version,
                allowed=", ".join(sorted(model.versions)),
            )
        # A version that is being removed still answers the requests that were let in before.
        if found.state in {State.READY, State.LEAVING}:
            return wanted
        why = f": {found.reason}" if found.reason else ""
        return _error("unavailable", f"{name} {wanted} is {found.state}{why}.")

    def _post(self, model: str, version: str, request: GenerateRequest, request_id: str, *, progress: bool) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # No limit here: the front door limits how many requests are open.
                connector=connector(self._api),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS),
                auto_decompress=False,
                read_bufsize=2**20,
            )
        body, content_type = encode(request)
        headers = {"Accept": _ACCEPT, "Content-Type": content_type, "X-Request-Id": request_id, **self._api.headers()}
        if (caller := asking.get().shared) is not None:
            # Whose pictures the worker's helpers decode; a name may be anything, a header may not.
            headers["X-Ddpm-Caller"] = hashlib.sha256(caller.encode()).hexdigest()[:16]
        if not progress:
            headers["Prefer"] = "return=minimal"
        return self._session.post(
            f"{self._api.url}/predictions/{quote(model, safe='')}/{quote(version, safe='')}",
            # A large body in one piece would stop the event loop; a small one goes out with its headers.
            data=body if len(body) <= _SMALL_BODY else io.BytesIO(body),
            headers=headers,
            allow_redirects=False,
        )


def connector(api: Api) -> aiohttp.BaseConnector:
    """As many connections to TorchServe as are wanted."""
    return aiohttp.UnixConnector(str(api.socket), limit=0) if api.socket else aiohttp.TCPConnector(limit=0)


def encode(request: GenerateRequest) -> tuple[bytes, str]:
    """A request as a body and its content type; the picture travels as it came, and only what was given is said.

    Never urlencoded: TorchServe logs such a body when it cannot read it.
    """
    everything = request.parameters()
    given = {name: value for name, value in everything.items() if name in request.model_fields_set}
    if request.image is None:
        return json.dumps(given).encode(), "application/json"
    if not given:
        return request.image, "application/octet-stream"
    fields = {name: _text(value) for name, value in given.items()}
    # A file name makes it a file, whose bytes TorchServe leaves alone.
    return encode_multipart_formdata({**fields, "image": ("image", request.image, "application/octet-stream")})


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


async def _lines(content: aiohttp.StreamReader, asked: Asked) -> AsyncGenerator[bytes, None]:
    """The whole lines of a stream that are not blank; a last one without its end is dropped. All that comes is told."""
    rest = b""
    asked.listen()
    async for chunk in content.iter_any():
        asked.answered()
        *whole, rest = (rest + chunk).split(b"\n") if b"\n" in chunk else [rest + chunk]
        if len(rest) > _LONGEST_LINE:
            raise ValueError("a line is too long")
        for line in whole:
            if line.strip():
                yield line
        asked.listen()


async def _refusal(response: aiohttp.ClientResponse) -> Error:
    """What a plain answer says: in our shape, or in TorchServe's own, whose text is about its insides."""
    after = response.headers.get("Retry-After", "")
    retry_after = int(after) if after.isascii() and after.isdigit() else None
    text = await response.read()
    with suppress(ValidationError):
        return _timed(ErrorBody.model_validate_json(text).error, retry_after)
    if response.status == _TOO_LARGE:
        return Error(code="too_large", message="The request is too large for TorchServe.", field="body")
    if response.status == _MISSING:
        return _error("unavailable", "The version has just been removed; ask again.")
    if response.status == 503:
        return _error("unavailable", "The model's worker is starting again; ask again.")
    if _DIED in text:  # under the request: it was scaled away, or killed
        return _error("unavailable", "The model's worker broke off; ask again.")
    return Error(code="internal", message="The model's worker failed before its first answer.")


def _timed(error: Error, retry_after: int | None = None) -> Error:
    """An error of a worker, with the seconds after which to ask again: its JSON has none."""
    return error.model_copy(update={"retry_after": retry_after or (_RETRY_SECONDS if error.status == 503 else None)})


def _error(code: str, message: str) -> Error:
    return Error(code=code, message=message, retry_after=None if code == "timeout" else _RETRY_SECONDS)
