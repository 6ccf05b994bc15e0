"""Uploads decoded in helper processes: whatever a picture does to its decoder, its sender alone is refused.

A picture is given its turn by one number, as the engine's requests are: its arrival, plus the seconds that it will
take, plus the seconds that its sender's pictures have taken lately. So nobody waits for somebody else's bombs, and the
last free helper is kept for a light picture of somebody who has no other one in work.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from ddpm_core.errors import InvalidInput
from ddpm_core.faces import cost, wire
from ddpm_core.faces.align import Target
from ddpm_core.faces.decode import Picture
from ddpm_core.faces.nursery import Dead, Helper, Nursery

# Seconds: decoding may take so much processor time, and so many times what it is expected to take.
_LEAST_SECONDS, _PATIENCE = 0.5, 4.0
_ALIGN_SECONDS = 3.0  # the longest search for a face takes a tenth of it
# The same of time: a machine at work gives a helper little of it, but only one that is stuck takes so long.
_LEAST_WALL, _WALL_PATIENCE = 30.0, 20.0
# Bytes of address space: for any picture, for a pixel, and at most.
_LEAST_MEMORY, _MEMORY_PER_PIXEL, _MOST_MEMORY = 256 * 2**20, 24, 1280 * 2**20
_HEAVY_SECONDS = 1.0  # who is expected to take more is heavy: one at a time, and never in the last free helper
# Decoding is a little behind those who make faces. Who takes more than so long, together with what his pictures took
# lately, goes far behind; half of that is forgotten after so long.
_LITTLE, _NICE_SECONDS, _FAR, _HALF_SECONDS = 3, 2.0, 10, 10.0
_MOST_HELPERS = 8


@dataclass(eq=False)
class _Job:
    said: wire.Said
    data: bytes
    read: Callable[[wire.Said, bytearray], Any]
    limits: dict[str, float]
    caller: str | None
    due: float
    is_heavy: bool
    done: Future[Any]


class Pool:
    """Processes that decode and align pictures; they start with the first picture.

    Args:
        domain: of the face finder that each helper has.
        detector: its YuNet file, or None.
        pictures_each: pictures that a helper decodes before another takes its place: one, where they are of different
            people, so that nothing of a picture can reach the next one.
    """

    def __init__(self, domain: str = "any", detector: Path | None = None, *, pictures_each: int = 1) -> None:
        # At least two, so that a light picture never waits for a heavy one.
        self.helpers = max(2, min(_MOST_HELPERS, os.cpu_count() or 1))
        self._each = pictures_each
        self._nursery = Nursery(domain, detector)
        self._news = threading.Condition()
        self._waiting: list[_Job] = []
        self._working: list[_Job] = []
        self._spent: dict[str, tuple[float, float]] = {}  # caller → seconds of a processor, and as of when
        self._threads: list[threading.Thread] = []
        self._closed = False

    def aim(
        self, data: bytes, side: int, *, align: str = "auto", face: int | None = None, caller: str | None = None
    ) -> Future[Target]:
        """Decode an upload and align it, as `decode` and `align` do.

        Args:
            data: the bytes of one picture.
            side: of the target, in pixels.
            align: as in the request.
            face: as in the request.
            caller: who is charged; None where nobody is known.

        Returns:
            The target, as soon as it is made. Its `result` raises InvalidInput as `decode` and `align` do, or
            `too_costly`, field `image`.
        """
        said = {"side": side, "align": align, "face": face}
        return self._submit(data, said, partial(wire.to_target, side=side), caller)

    def decode(self, data: bytes, *, caller: str | None = None) -> Future[Picture]:
        """Decode an upload; the rest as in `aim`."""
        return self._submit(data, {"side": None}, wire.to_picture, caller)

    def close(self) -> None:
        """Decode no more pictures: what waits is cancelled."""
        with self._news:
            self._closed = True
            for job in self._waiting:
                job.done.cancel()
            self._news.notify_all()
        for thread in self._threads:
            thread.join()
        self._nursery.close()

    def _submit(
        self, data: bytes, said: wire.Said, read: Callable[[wire.Said, bytearray], Any], caller: str | None
    ) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            expected = cost.estimate(data)
        except InvalidInput as refusal:
            done.set_exception(refusal)
            return done
        memory = min(_LEAST_MEMORY + _MEMORY_PER_PIXEL * expected.pixels, _MOST_MEMORY) + 2 * len(data)
        with self._news:
            now = time.monotonic()
            seconds = expected.seconds + self._debt(caller, now)
            limits = {
                "decode_seconds": _LEAST_SECONDS + _PATIENCE * expected.seconds,
                "align_seconds": _ALIGN_SECONDS,
                "seconds": _LEAST_WALL + _WALL_PATIENCE * expected.seconds,
                "memory": memory,
                "nice": _FAR if seconds > _NICE_SECONDS else _LITTLE,
            }
            is_heavy = expected.seconds > _HEAVY_SECONDS
            job = _Job(said | {"limits": limits}, data, read, limits, caller, now + seconds, is_heavy, done)
            self._waiting.append(job)
            self._waiting.sort(key=lambda each: each.due)
            while len(self._threads) < self.helpers:
                self._threads.append(threading.Thread(target=self._work, daemon=True))
                self._threads[-1].start()
            self._news.notify_all()
        return done

    def _debt(self, caller: str | None, now: float) -> float:
        """Seconds that a caller's pictures have taken lately."""
        if caller not in self._spent:
            return 0.0
        seconds, since = self._spent[caller]
        return float(seconds * 0.5 ** ((now - since) / _HALF_SECONDS))

    def _charge(self, caller: str | None, seconds: float) -> None:
        if caller is not None:
            now = time.monotonic()
            self._spent[caller] = (self._debt(caller, now) + seconds, now)
            self._spent = {who: each for who, each in self._spent.items() if self._debt(who, now) > 0.01}

    def _work(self) -> None:
        """Give one job after the other to a helper, which waits for it, ready."""
        helper: Helper | None = None
        while not self._closed:
            with suppress(RuntimeError):  # whoever needs it is told
                helper = helper or self._nursery.helper()
            helper = self._do_next(helper)  # nothing here holds a picture while there is none to decode
            if helper is not None and (helper.pictures >= self._each or self._closed):
                helper.close()
                helper = None

    def _do_next(self, helper: Helper | None) -> Helper | None:
        """Do the next job; give the helper that is left."""
        job = self._next()
        if job is None:
            return helper
        seconds = job.limits["decode_seconds"]
        try:
            while True:
                helper = helper or self._nursery.helper()
                try:
                    said, pixels = helper.ask(job.said, job.data, job.limits["seconds"])
                    break
                except Dead as death:
                    helper.close()
                    helper = None
                    if death.guilty:
                        raise cost.too_costly("takes more to decode than its size explains") from None
            seconds = float(said["processor_seconds"])
            job.done.set_result(_made(job, said, pixels))
        except Exception as problem:
            job.done.set_exception(problem)
        finally:
            with self._news:
                self._working.remove(job)
                self._charge(job.caller, seconds)
                self._news.notify_all()
        return helper

    def _next(self) -> _Job | None:
        """Wait for a job whose turn it is; None when the pool is closed."""
        with self._news:
            while not self._closed:
                for job in self._waiting:
                    if self._may_begin(job):
                        self._waiting.remove(job)
                        if job.done.set_running_or_notify_cancel():
                            self._working.append(job)
                            return job
                        break
                else:
                    self._news.wait()
            return None

    def _may_begin(self, job: _Job) -> bool:
        if job.is_heavy and any(other.is_heavy for other in self._working):
            return False
        others = job.caller is not None and any(other.caller == job.caller for other in self._working)
        return len(self._working) < self.helpers - 1 or not (job.is_heavy or others)


@cache
def pool_for(domain: str = "any", detector: Path | None = None, pictures_each: int = 1) -> Pool:
    """Give this process's pool of a kind; as `Pool`."""
    return Pool(domain, detector, pictures_each=pictures_each)


def _made(job: _Job, said: wire.Said, pixels: bytearray) -> Any:
    if "made" in said:
        return job.read(said["made"], pixels)
    if "refused" in said:
        raise wire.to_refusal(said["refused"])
    raise RuntimeError(f"a picture cannot be decoded: {said.get('failed')}")
