"""How much each caller may ask, and how much is held at one time.

Whatever is short is shared by one rule (`within_share`): who sends a token may hold no more of it than is free for
others before. So one token alone gets half, a second one a third of the rest, and whoever comes next finds something.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from ddpm_api import ApiError, Error
from ddpm_service.gateway.auth import ANONYMOUS, Caller
from ddpm_service.gateway.settings import Settings

Key = TypeVar("Key")
_RETRY_SECONDS = 5
# A caller that asked for nothing during this time has a full bucket again, so it is forgotten.
_FORGET_SECONDS = 120.0
_NOBODY = Caller(ANONYMOUS)


class Limits:
    """Counts what is open. Used in one thread, the event loop's.

    Args:
        settings: the limits.
        clock: seconds that only grow.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._by_caller: Counter[str] = Counter()
        self._by_version: Counter[tuple[str, str]] = Counter()
        self._by_version_and_caller: Counter[tuple[str, str, str]] = Counter()
        self._upload_bytes: Counter[str] = Counter()

    @contextmanager
    def caller(self, caller: Caller) -> Iterator[None]:
        """Hold one of a caller's places; a token has a rate and a number of places, anonymous callers have not.

        Raises:
            ApiError: `rate_limited`, with the seconds to wait.
        """
        if caller.known:
            self._take(caller.name)
            if self._by_caller[caller.name] >= self._settings.max_open_per_token:
                allowed = f"{self._settings.max_open_per_token} requests at one time"
                raise _limited("Too many requests of this token are under way.", allowed, _RETRY_SECONDS)
        with _counted(self._by_caller, caller.name):
            yield

    @contextmanager
    def place(self, name: str, version: str, caller: Caller = _NOBODY) -> Iterator[None]:
        """Hold one of the places of a model version, under way or queued.

        Raises:
            ApiError: all are taken (`busy`), or the caller has his share of them (`rate_limited`).
        """
        taken, most = self._by_version[name, version], self._settings.max_open
        if taken >= most:
            raise ApiError(Error(code="busy", message="The queue is full; ask again.", retry_after=_RETRY_SECONDS))
        own = self._by_version_and_caller[name, version, caller.name]
        if caller.known and not within_share(own, 1, taken, most):
            message = "This token has its share of the model's queue."
            raise _limited(message, f"{own} requests while others ask", _RETRY_SECONDS)
        with (
            _counted(self._by_version, (name, version)),
            _counted(self._by_version_and_caller, (name, version, caller.name)),
        ):
            yield

    def open(self, name: str, version: str) -> int:
        """Places of a model version that are taken; may be asked from any thread."""
        return self._by_version[name, version]

    @contextmanager
    def upload(self, announced: int, caller: Caller = _NOBODY) -> Iterator[Upload]:
        """Hold memory for a body while it arrives.

        Only bytes that have arrived are held, and as long as the request lasts, for TorchServe keeps the body too.
        Announced bytes are not held: a client could announce many, send nothing and shut out all others.

        Args:
            announced: the length that the client has announced; 0 where it has not.
            caller: who sends it.

        Raises:
            ApiError: longer than allowed (`too_large`), or too much is held already, by all (`busy`) or by this
                caller (`rate_limited`).
        """
        if announced > self._settings.max_bytes:
            raise too_large(announced, self._settings.max_bytes)
        upload = Upload(self._upload_bytes, self._settings.max_upload_bytes, caller)
        upload.expect(announced)
        try:
            yield upload
        finally:
            upload.hold(0)

    def _take(self, name: str) -> None:
        """Take one of the requests that a token may make; they grow back at its rate."""
        now = self._clock()
        most = self._settings.rate_per_minute
        self._buckets = {key: each for key, each in self._buckets.items() if now - each[1] < _FORGET_SECONDS}
        left, since = self._buckets.get(name, (most, now))
        left = min(most, left + (now - since) * most / 60)
        if left < 1:
            self._buckets[name] = (left, now)
            seconds = max(1, math.ceil((1 - left) * 60 / most))
            raise _limited("Too many requests of this token.", f"{most:g} requests a minute", seconds)
        self._buckets[name] = (left - 1, now)


class Upload:
    """Memory that is held for one body."""

    def __init__(self, held: Counter[str], most: int, caller: Caller) -> None:
        self._held = held
        self._most = most
        self._caller = caller
        self._size = 0

    def expect(self, size: int) -> None:
        """Check that there is room for a body of `size` bytes; one body alone always has room.

        Raises:
            ApiError: too much is held already, by all (`busy`) or by its caller (`rate_limited`).
        """
        others = self._held.total() - self._size
        if not others:
            return
        if others + size > self._most:
            message = "Too many uploads at one time; ask again."
            raise ApiError(Error(code="busy", message=message, retry_after=_RETRY_SECONDS))
        own = self._held[self._caller.name] - self._size
        if self._caller.known and own and not within_share(own, size, others, self._most):
            message = "Too many uploads of this token at one time."
            raise _limited(message, f"{own} bytes while others ask", _RETRY_SECONDS)

    def hold(self, size: int) -> None:
        """Hold `size` bytes from now on.

        Raises:
            ApiError: there is no room for it.
        """
        if size > self._size:
            self.expect(size)
        self._held[self._caller.name] += size - self._size
        self._size = size
        if not self._held[self._caller.name]:
            del self._held[self._caller.name]


class Turns:
    """So many at a time, in shares; the others wait. Used in one event loop.

    Args:
        most: at one time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def turn(self, caller: Caller) -> AsyncIterator[None]:
        """Wait for a turn, and hold it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_free(caller))
            self._taken[caller.name] += 1
        try:
            yield
        finally:
            self._taken[caller.name] -= 1
            async with self._changed:
                self._changed.notify_all()

    def _is_free(self, caller: Caller) -> bool:
        taken = self._taken.total()
        own = self._taken[caller.name] if caller.known else 0
        return within_share(own, 1, taken, self._most)


def within_share(own: int, size: int, taken: int, most: int) -> bool:
    """Whether a caller who holds `own` may hold `size` more of what is short, of which so much is taken."""
    return own + size <= most - taken


def too_large(given: int, longest: int) -> ApiError:
    """The refusal of a body that is too long."""
    allowed = f"at most {longest} bytes"
    message = "The request's body is too large."
    return ApiError(Error(code="too_large", message=message, field="body", given=given, allowed=allowed))


def _limited(message: str, allowed: str, seconds: int) -> ApiError:
    return ApiError(Error(code="rate_limited", message=message, allowed=allowed, retry_after=seconds))


@contextmanager
def _counted(counter: Counter[Key], key: Key) -> Iterator[None]:
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]
