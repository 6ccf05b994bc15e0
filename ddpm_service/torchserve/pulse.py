"""When each version gave its last sign of life: told by whoever asks it, judged by the supervisor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Key = tuple[str, str]
"""A model's name and version."""


@dataclass
class _Record:
    last: float  # sign of life, or the beginning
    since: float  # when the first of those that wait began to, or the last sign of life while they did
    waiting: int = 0
    waited: float = 0.0  # in vain, by those that left since the last sign of life
    beats: int = 0


class Pulse:
    """Signs of life by version. All methods may be called from any thread.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._records: dict[Key, _Record] = {}

    @contextmanager
    def asked(self, key: Key) -> Iterator[Callable[[], None]]:
        """Hold while a request waits for a version; call what is given at each sign of life."""
        with self._lock:
            record = self._record(key)
            if not record.waiting:
                record.since = self._clock()
            record.waiting += 1

        def beat() -> None:
            with self._lock:
                record.last = record.since = self._clock()
                record.waited = 0.0
                record.beats += 1

        try:
            yield beat
        finally:
            with self._lock:
                record.waiting -= 1
                if not record.waiting:
                    record.waited += self._clock() - record.since

    def beats(self, key: Key) -> int:
        """Count the signs of life so far."""
        with self._lock:
            return self._record(key).beats

    def silence(self, key: Key) -> float:
        """Seconds for which requests have waited since the last sign of life."""
        with self._lock:
            record = self._record(key)
            return record.waited + (self._clock() - record.since if record.waiting else 0.0)

    def idle(self, key: Key) -> float:
        """Seconds since the last sign of life; 0 while a request waits."""
        with self._lock:
            record = self._record(key)
            return 0.0 if record.waiting else self._clock() - record.last

    def forget(self, key: Key) -> None:
        """Begin anew, as a version does: what waits for its former worker says nothing of the next."""
        with self._lock:
            self._records.pop(key, None)

    def _record(self, key: Key) -> _Record:
        now = self._clock()
        return self._records.setdefault(key, _Record(now, now))
