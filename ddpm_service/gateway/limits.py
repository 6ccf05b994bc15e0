"""How much each caller may ask, and how much is held at one time.

Whatever is short is shared by one rule (`within_share`): a caller may hold no more of it than is free for others
before. So one alone gets half, a second one a third of the rest, and whoever comes next finds something. A caller is a
token, or, where none is asked for, an IP address that is not this machine's.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TypeVar

from ddpm_api import ApiError, Error
from ddpm_service.gateway.auth import NOBODY, Caller
from ddpm_service.gateway.settings import Settings

Key = TypeVar("Key")
_RETRY_SECONDS = 5
# A caller that asked for nothing during this time has a full bucket again, so it is forgotten.
_FORGET_SECONDS = 120.0


class Limits:
    """A count of what is open. Used in one thread, the event loop's.

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
        self._by_version_and_caller: Counter[tuple[str, str, str | None]] = Counter()
        self._upload_bytes: Counter[str | None] = Counter()

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
    def place(self, name: str, version: str, caller: Caller = NOBODY) -> Iterator[None]:
        """Hold one of the places of a model version, under way or queued.

        Raises:
            ApiError: all are taken (`busy`), or the caller has his share of them (`rate_limited`).
        """
        taken, most = self._by_version[name, version], self._settings.max_open
        if taken >= most:
            raise ApiError(Error(code="busy", message="The queue is full; ask again.", retry_after=_RETRY_SECONDS))
        own = self._by_version_and_caller[name, version, caller.shared]
        if caller.shared is not None and not within_share(own, 1, taken, most):
            message = "This caller has a share of the model's queue, and all of that."
            raise _limited(message, f"{own} requests while others ask", _RETRY_SECONDS)
        with (
            _counted(self._by_version, (name, version)),
            _counted(self._by_version_and_caller, (name, version, caller.shared)),
        ):
            yield

    def open(self, name: str, version: str) -> int:
        """Places of a model version that are taken; may be asked from any thread."""
        return self._by_version[name, version]

    @contextmanager
    def upload(self, announced: int, caller: Caller = NOBODY) -> Iterator[Upload]:
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

    def __init__(self, held: Counter[str | None], most: int, caller: Caller) -> None:
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
        own = self._held[self._caller.shared] - self._size
        if self._caller.shared is not None and own and not within_share(own, size, others, self._most):
            message = "Too many uploads of this caller at one time."
            raise _limited(message, f"{own} bytes while others ask", _RETRY_SECONDS)

    def hold(self, size: int) -> None:
        """Hold `size` bytes from now on.

        Raises:
            ApiError: there is no room for it.
        """
        if size > self._size:
            self.expect(size)
        self._held[self._caller.shared] += size - self._size
        self._size = size
        if not self._held[self._caller.shared]:
            del self._held[self._caller.shared]


class Places:
    """So many at one time, in shares; nobody waits. Used in one thread, the event loop's.

    Args:
        most: at one time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str | None] = Counter()

    @contextmanager
    def place(self, caller: Caller) -> Iterator[None]:
        """Hold a place.

        Raises:
            ApiError: there is none for this caller (`busy`).
        """
        own = 0 if caller.shared is None else self._taken[caller.shared]
        if not within_share(own, 1, self._taken.total(), self._most):
            message = "Too many calls at one time; ask again."
            raise ApiError(Error(code="busy", message=message, retry_after=_RETRY_SECONDS))
        with _counted(self._taken, caller.shared):
            yield


class Turns:
    """So many at a time, in shares; the others wait. Used in one event loop.

    Args:
        most: at one time.
        patience: seconds that a turn may last while somebody waits and all are taken.
    """

    def __init__(self, most: int, patience: float = math.inf) -> None:
        self._most = most
        self._patience = patience
        self._taken: Counter[str | None] = Counter()
        self._began: dict[asyncio.Timeout, float] = {}  # of each turn that is held, the oldest first
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def turn(self, caller: Caller) -> AsyncIterator[None]:
        """Wait for a turn, and hold it.

        Raises:
            TimeoutError: it has lasted too long, and somebody else waits for it.
        """
        async with self._changed:
            while not self._is_free(caller):
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._hurry()):
                        await self._changed.wait()
            self._taken[caller.shared] += 1
        own = asyncio.timeout(None)
        try:
            async with own:
                self._began[own] = asyncio.get_running_loop().time()
                yield
        finally:
            self._began.pop(own, None)
            self._taken[caller.shared] -= 1
            async with self._changed:
                self._changed.notify_all()

    def _is_free(self, caller: Caller) -> bool:
        own = 0 if caller.shared is None else self._taken[caller.shared]
        return within_share(own, 1, self._taken.total(), self._most)

    def _hurry(self) -> float | None:
        """End the turn that has lasted longest, if that is too long; seconds until the next one has, if any will."""
        if self._taken.total() < self._most or self._patience == math.inf:
            return None
        now = asyncio.get_running_loop().time()
        own, began = next(iter(self._began.items()))
        if (left := began + self._patience - now) > 0:
            return left
        if not own.expired():
            own.reschedule(now)
        return self._patience


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
