"""How much each caller may ask, and how much is held at one time."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ddpm_api import ApiError, Error
from ddpm_service.gateway.auth import Caller
from ddpm_service.gateway.settings import Settings

Key = TypeVar("Key")
_RETRY_SECONDS = 5
# A caller that asked for nothing during this time has a full bucket again, so it is forgotten.
_FORGET_SECONDS = 120.0


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
        self._upload_bytes = 0

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
    def place(self, name: str, version: str) -> Iterator[None]:
        """Hold one of the places of a model version, under way or queued.

        Raises:
            ApiError: all are taken (`busy`).
        """
        if self._by_version[name, version] >= self._settings.max_open:
            raise ApiError(Error(code="busy", message="The queue is full; ask again.", retry_after=_RETRY_SECONDS))
        with _counted(self._by_version, (name, version)):
            yield

    def open(self, name: str, version: str) -> int:
        """Places of a model version that are taken; may be asked from any thread."""
        return self._by_version[name, version]

    @contextmanager
    def upload(self, announced: int) -> Iterator[Upload]:
        """Hold memory for a body while it arrives; so many bytes are expected, 0 where it is not said beforehand.

        What has arrived is held for the whole time of the request: TorchServe keeps the body too. What was only
        announced is not, or who announces much and sends nothing would shut out everybody else.

        Raises:
            ApiError: longer than allowed (`too_large`), or too much is held already (`busy`).
        """
        if announced > self._settings.max_bytes:
            raise too_large(announced, self._settings.max_bytes)
        upload = Upload(self, self._settings.max_upload_bytes)
        upload.expect(announced)
        try:
            yield upload
        finally:
            upload.settle(0)

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

    def __init__(self, limits: Limits, most: int) -> None:
        self._limits = limits
        self._most = most
        self._size = 0

    def expect(self, size: int) -> None:
        """See that there is room for so much; one body alone always has room.

        Raises:
            ApiError: too much is held already (`busy`).
        """
        others = self._limits._upload_bytes - self._size
        if others and others + size > self._most:
            message = "Too many uploads at one time; ask again."
            raise ApiError(Error(code="busy", message=message, retry_after=_RETRY_SECONDS))

    def settle(self, size: int) -> None:
        """Hold so much from now on.

        Raises:
            ApiError: there is no room for it.
        """
        if size > self._size:
            self.expect(size)
        self._limits._upload_bytes += size - self._size
        self._size = size


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
