"""When each version gave its last sign of life: told by whoever asks it, judged by the supervisor."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Key = tuple[str, str]
"""A model's name and version."""

# Seconds without a sign of life that are too many: a worker gives one every 2 s to all who wait, but never during a
# network call, so calls are allowed for. How long one lasts we know by our own requests.
_SILENT_SECONDS = 5.0
_CALLS = 8
_UNKNOWN_CALL = 1.0


@dataclass
class _Record:
    last: float  # sign of life, or the beginning
    since: float  # when the first of those that wait began to, or the last sign of life while they did
    waiting: int = 0
    waited: float = 0.0  # in vain, by those that left since the last sign of life
    beats: int = 0


class Asked:
    """A request that waits for a version."""

    def __init__(self, pulse: Pulse, record: _Record) -> None:
        self._pulse, self._record = pulse, record
        self.listen()

    def listen(self) -> None:
        """Begin to wait for a sign of life."""
        self._since = self._pulse.clock()

    def listen_anew(self) -> None:
        """Forget for how long it has waited, if it waits."""
        if self._since < math.inf:
            self.listen()

    def answered(self) -> None:
        """Tell that one came. Until it listens again nothing is expected: its client may be slow."""
        self._pulse.beat(self._record)
        self._since = math.inf

    @property
    def overtaken(self) -> float:
        """Seconds for which others got signs of life, and it alone got none."""
        return max(0.0, self._record.last - self._since)


class Pulse:
    """Signs of life by version. All methods may be called from any thread.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._records: dict[Key, _Record] = {}
        self._calls: dict[Key, float] = {}

    @contextmanager
    def asked(self, key: Key) -> Iterator[Asked]:
        """Hold while a request waits for a version, and tell what is given of each sign of life."""
        with self._lock:
            record = self._record(key)
            if not record.waiting:
                record.since = self.clock()
            record.waiting += 1
        try:
            yield Asked(self, record)
        finally:
            with self._lock:
                record.waiting -= 1
                if not record.waiting:
                    record.waited += self.clock() - record.since

    def beat(self, record: _Record) -> None:
        """Note a sign of life."""
        with self._lock:
            record.last = record.since = self.clock()
            record.waited = 0.0
            record.beats += 1

    def took(self, key: Key, seconds: float) -> None:
        """Learn how long a call lasts at most, by what an image of one step took."""
        self._calls[key] = seconds

    def call(self, key: Key) -> float | None:
        """Seconds that a call lasts at most, as far as that is known."""
        return self._calls.get(key)

    def limit(self, key: Key) -> float:
        """Seconds without a sign of life that are too many."""
        return _SILENT_SECONDS + _CALLS * self._calls.get(key, _UNKNOWN_CALL)

    def beats(self, key: Key) -> int:
        """Count the signs of life so far."""
        with self._lock:
            return self._record(key).beats

    def silence(self, key: Key) -> float:
        """Seconds for which requests have waited since the last sign of life."""
        with self._lock:
            record = self._record(key)
            return record.waited + (self.clock() - record.since if record.waiting else 0.0)

    def idle(self, key: Key) -> float:
        """Seconds since the last sign of life; 0 while a request waits."""
        with self._lock:
            record = self._record(key)
            return 0.0 if record.waiting else self.clock() - record.last

    def forget(self, key: Key) -> None:
        """Begin anew, as a version does: what waits for its former worker says nothing of the next."""
        with self._lock:
            self._records.pop(key, None)

    def _record(self, key: Key) -> _Record:
        now = self.clock()
        return self._records.setdefault(key, _Record(now, now))
