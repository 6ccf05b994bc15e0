"""Whether versions answer: by what comes to their requests, and by requests of our own where there are none."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ddpm_service.errors import ServiceError
from ddpm_service.torchserve.board import Board, State
from ddpm_service.torchserve.pulse import Key, Pulse

# A version that nobody asks is asked by us. The pause between two of our requests is so many times what one takes,
# within these bounds (seconds).
_OWN_SHARE = 30.0
_OWN_LEAST, _OWN_MOST = 3.0, 60.0
# A version that is silent for so many times as long gets a new worker.
_PATIENCE = 4.0
_HEAR_SECONDS = 0.05

log = logging.getLogger("ddpm")


@dataclass(frozen=True, eq=False)
class _Own:
    """A request of ours."""

    began: float


class Answers:
    """A version's readiness by its answers: `ready` while they are recent, else `silent`.

    Args:
        board: where the state of every version is kept.
        pulse: what those who ask tell of their signs of life.
        ask: has (name, version) make one image in one step; raises ServiceError where it makes none.
        clock: seconds that only grow.
    """

    def __init__(
        self, board: Board, pulse: Pulse, ask: Callable[[str, str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._board, self._pulse, self._ask, self._clock = board, pulse, ask, clock
        self._failed: dict[Key, str] = {}
        self._silent_since: dict[Key, float] = {}
        self._asking: dict[Key, _Own] = {}

    def patience(self, key: Key) -> float:
        """Seconds after which a version that is silent needs a new worker."""
        return _PATIENCE * self._pulse.limit(key)

    def look(self, key: Key) -> bool:
        """Look at a version whose worker takes requests; return whether it needs another worker."""
        now, silence = self._clock(), self._pulse.silence(key)
        why = self._failed.get(key) or (f"no answer for {silence:.0f} s" if silence > self._pulse.limit(key) else None)
        if why and key not in self._silent_since:
            self._silent_since[key] = now
            log.error("%s %s is silent: %s", *key, why)
            self._board.move(*key, State.SILENT, why)
        elif not why and self._silent_since.pop(key, None) is not None:
            log.info("%s %s answers again", *key)
            self._board.move(*key, State.READY)
        seldom = min(max(_OWN_LEAST, _OWN_SHARE * (self._pulse.call(key) or 0.0)), _OWN_MOST)
        # Nothing comes to a request whose selfie takes long to decode, but one of ours is answered meanwhile.
        if self._pulse.idle(key) > (0.0 if why else seldom) or silence > self._pulse.limit(key) / 2:
            self._begin_asking(key)
        return now - self._silent_since.get(key, now) > self.patience(key)

    def hear(self, key: Key) -> bool:
        """Wait for the next sign of life of a version, and ask for one; where none comes in time, it is silent."""
        began, beats = self._clock(), self._pulse.beats(key)
        self._failed.pop(key, None)
        self._begin_asking(key)
        while self._pulse.beats(key) == beats:
            waited = self._clock() - began
            if waited > self._pulse.limit(key):
                self._failed.setdefault(key, f"no answer for {waited:.0f} s")
            if why := self._failed.get(key):
                log.error("%s %s is silent: %s", *key, why)
                self._board.move(*key, State.SILENT, why)
                return False
            time.sleep(_HEAR_SECONDS)
        return True

    def forget(self, key: Key) -> None:
        """Begin anew, as a version does whose worker has died."""
        for known in (self._failed, self._silent_since, self._asking):
            known.pop(key, None)
        self._pulse.forget(key)

    def _begin_asking(self, key: Key) -> None:
        """Ask a version, unless a request of ours is under way: one that takes long may be lost."""
        now, newest = self._clock(), self._asking.get(key)
        if newest is None or now - newest.began > self._pulse.limit(key) / 2:
            self._asking[key] = own = _Own(now)
            threading.Thread(target=self._ask_it, args=(key, own), daemon=True).start()

    def _ask_it(self, key: Key, own: _Own) -> None:
        with self._pulse.asked(key) as asked:
            try:
                self._ask(*key)
            except ServiceError as error:
                # What a former worker answered, or did not, says nothing about the next one.
                if self._asking.get(key) is own:
                    self._failed[key] = str(error)
            else:
                asked.answered()
                self._pulse.took(key, self._clock() - own.began)
                self._failed.pop(key, None)
        if self._asking.get(key) is own:
            del self._asking[key]
