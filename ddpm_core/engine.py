"""The step engine: admits plans, decides who advances, ticks, and reports events. Knows no server.

An image's remaining work is known exactly, so the engine runs shortest-remaining-first with ageing: requests are
ordered by their arrival plus the seconds of work they have left. A short request overtakes a long one that came just
before it, and nobody is overtaken by those who come later than its own work would have taken. Between callers the one
whose last request ended longest ago comes first, so that whoever has many open queues behind them, not before others.
"""

from __future__ import annotations

import logging
import math
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection, Sequence

import numpy as np

from ddpm_core import events
from ddpm_core.bundle import Wholeness
from ddpm_core.denoiser import Denoiser
from ddpm_core.device import is_lost, out_of_memory
from ddpm_core.errors import InvalidInput
from ddpm_core.events import Event
from ddpm_core.flight import Flight, Job, Part
from ddpm_core.leaving import Leaving, Shown, shown
from ddpm_core.plan import Plan
from ddpm_core.ranking import demerits
from ddpm_core.room import Room
from ddpm_core.runner import Runner

log = logging.getLogger(__name__)

CREDIT = 30.0  # s; whoever asked for nothing for so long comes before those who did, with one request


class Busy(Exception):
    """The engine is full; come back in about `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"The service is full; try again in about {retry_after} s.")
        self.retry_after = retry_after


class StepEngine:
    """The requests that one network works on, a step at a time.

    Args:
        denoiser: the network.
        max_rows: images in one network call, as far as memory goes (`ddpm_core.room`).
        ahead: ticks that are launched before an earlier one is waited for: on a GPU one, which then never idles.
        seconds_per_row: first estimate of a network call's time per image; corrected while running.
        guide_cost: a call of the guide, in calls of the network.
        wholeness: the bundle's statistics for best of K.
        capacity: open requests; one more is refused with `Busy`.
        max_work: work that one request may ask for: network calls × images, guided ones at what they cost.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        max_rows: int,
        ahead: int = 0,
        seconds_per_row: float = 0.01,
        guide_cost: float = 0.0,
        wholeness: Wholeness | None = None,
        capacity: int = 64,
        max_work: int = 8000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.denoiser = denoiser
        self.ahead = ahead
        self.seconds_per_row = seconds_per_row
        self.guide_cost = guide_cost
        self.wholeness = wholeness
        self.capacity = capacity
        self.max_work = max_work
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._runner = Runner(denoiser, Room(max_rows, clock))
        self._flights: deque[Flight] = deque()
        self._landed = -math.inf
        self._ended: dict[str | None, float] = {}  # when the last request of a caller ended

    def __len__(self) -> int:
        """Give the number of open requests."""
        return len(self._jobs)

    def __contains__(self, request_id: str) -> bool:
        """Tell whether a request is open."""
        return request_id in self._jobs

    @property
    def max_rows(self) -> int:
        """Images in one network call, now."""
        return self._runner.room.rows

    @max_rows.setter
    def max_rows(self, most: int) -> None:
        self._runner.room = Room(most, self._clock)

    @property
    def backlog_seconds(self) -> float:
        """Seconds of work that all open requests have left."""
        return self.seconds_per_row * sum(job.work_left for job in self._jobs.values())

    def admit(
        self,
        request_id: str,
        plan: Plan,
        *,
        num_images: int | None = None,
        preview_every: int = 0,
        max_work: int | None = None,
        caller: str | None = None,
    ) -> None:
        """Take a request in.

        Args:
            request_id: not open already.
            plan: what to do.
            num_images: keep the best so many of the plan's images; all unless said.
            preview_every: calls between previews; 0 for none.
            max_work: a limit of this request's own below the engine's.
            caller: who asks; None where nobody is known.

        Raises:
            InvalidInput: more work than allowed.
            Busy: the engine is full.
        """
        if request_id in self._jobs:
            raise ValueError("this request is open already")
        limit = self.max_work if max_work is None else min(max_work, self.max_work)
        cost = plan.cost(self.guide_cost)
        work = math.ceil(cost.sum() * len(plan.seeds))
        if work > limit:
            pushed = " with a guide" if plan.table.guide.any() else ""
            raise InvalidInput(
                "too_much_work",
                f"{len(plan.seeds)} images of {plan.calls} network calls{pushed} are the work of {work} calls, about "
                f"{work * self.seconds_per_row:.0f} s; at most {limit} calls are allowed in one request. "
                "Ask for fewer images or steps.",
                field="num_inference_steps",
                given=plan.calls,
                allowed=f"num_images × num_inference_steps ≤ {limit}",
            )
        self.check_room()
        left = np.concatenate([cost[::-1].cumsum()[::-1], [0.0]])
        self._jobs[request_id] = Job(plan, num_images or len(plan.seeds), preview_every, self._clock(), left, caller)

    def check_room(self, coming: int = 0) -> None:
        """Raise `Busy` if the engine is full, or will be with so many who are on their way to it."""
        if len(self._jobs) + coming >= self.capacity:
            raise Busy(max(1, math.ceil(self.backlog_seconds / max(1, len(self._jobs)))))

    def retain(self, request_ids: Collection[str]) -> int:
        """Drop every open request that is not in `request_ids`; give how many were dropped."""
        gone = self._jobs.keys() - set(request_ids)
        for request_id in gone:
            self._served(self._jobs.pop(request_id).caller, self._clock())
        self._runner.forget(gone)
        return len(gone)

    def tick(self) -> list[tuple[str, Event]]:
        """Advance those whose turn it is by one network call each; give what happened, with the requests' ids.

        Raises:
            Exception: the device is lost (`ddpm_core.device.is_lost`); so is all that is under way.
        """
        self._runner.room.widen()
        due = self._due()
        order = sorted(due, key=due.__getitem__)
        chosen = self._choose(order)
        happened = self._start(chosen)
        happened += self._report_queue([request_id for request_id in order if request_id not in chosen])
        if chosen:
            self._flights.append(self._launch(chosen))
        while len(self._flights) > (self.ahead if chosen else 0):
            happened += self._land(self._flights.popleft())
        return happened

    def _launch(self, chosen: Sequence[str]) -> Flight:
        """Have the device advance these requests, and send what is to be shown of them."""
        begin = self._clock()
        jobs = {request_id: self._jobs[request_id] for request_id in chosen}
        before = sum(job.work_left for job in jobs.values())
        batch, failed = self._runner.advance({request_id: job.plan for request_id, job in jobs.items()})
        leaving = Leaving(batch)
        parts = [self._step(request_id, job, failed.get(request_id), leaving) for request_id, job in jobs.items()]
        work = before - sum(job.work_left for job in jobs.values())
        self._runner.forget(request_id for request_id, job in jobs.items() if job.is_over)
        return Flight(begin, work, parts, leaving.send())

    def _step(self, request_id: str, job: Job, error: Exception | None, leaving: Leaving) -> Part:
        """Take a request's images a step further; what is to be shown of them leaves."""
        job.step += 1
        rows, pictures = self._runner.rows[request_id], slice(0)
        batch = leaving.batch.part(rows.start, rows.stop)
        if error is None and job.step == job.plan.calls:
            demerit = None
            if job.plan.target is not None and job.num_images < job.rows:
                try:
                    demerit = demerits(
                        self.denoiser, batch.x, batch.target[0], rows=self.max_rows, wholeness=self.wholeness
                    )
                except Exception as problem:
                    if is_lost(problem):
                        raise
                    error = problem
            pictures = leaving.add(batch, batch.x, demerit)
        elif error is None and job.preview_every and job.step % job.preview_every == 0:
            pictures = leaving.add(batch, batch.x0_prev)
        job.is_over = error is not None or job.step == job.plan.calls
        return Part(request_id, job, job.step, slice(rows.start, rows.stop), pictures, error)

    def _land(self, flight: Flight) -> list[tuple[str, Event]]:
        """Wait for a tick, and report what it did for those who are still open."""
        seen = shown(flight.shown)
        now = self._clock()
        self._learn((now - max(flight.begin, self._landed)) / flight.work)
        self._landed = now
        return [
            (part.request_id, event)
            for part in flight.parts
            if self._jobs.get(part.request_id) is part.job
            for event in self._report(part, seen, now)
        ]

    def _due(self) -> dict[str, float]:
        """When each request's turn is: first his who was served longest ago, and one of his after the other."""
        due: dict[str, float] = {}
        behind: dict[str, float] = {}
        for request_id, job in self._jobs.items():
            if job.is_over:
                continue
            work, since = job.work_left, job.admitted - CREDIT
            if job.caller is not None:
                work = behind[job.caller] = behind.get(job.caller, 0.0) + work
                since = max(since, self._ended.get(job.caller, since))
            due[request_id] = since + work * self.seconds_per_row
        return due

    def _choose(self, order: Sequence[str]) -> list[str]:
        """Take requests in order while they fit; the first always, in as many network calls as it needs."""
        chosen: list[str] = []
        rows = 0
        for request_id in order:
            job = self._jobs[request_id]
            room = math.ceil(max(rows, 1) / self.max_rows) * self.max_rows - rows
            if not chosen or job.rows <= room:
                chosen.append(request_id)
                rows += job.rows
        return chosen

    def _start(self, chosen: Sequence[str]) -> list[tuple[str, Event]]:
        happened: list[tuple[str, Event]] = []
        for request_id in chosen:
            job = self._jobs[request_id]
            if math.isinf(job.started):
                job.started = self._clock()
                happened.append((request_id, events.Started(job.started - job.admitted)))
        return happened

    def _report_queue(self, waiting: Sequence[str]) -> list[tuple[str, Event]]:
        happened: list[tuple[str, Event]] = []
        running = sum(job.started < math.inf for job in self._jobs.values())
        for position, request_id in enumerate(
            request_id for request_id in waiting if math.isinf(self._jobs[request_id].started)
        ):
            job = self._jobs[request_id]
            if job.position != running + position:
                job.position = running + position
                happened.append((request_id, events.Queued(job.position)))
        return happened

    def _report(self, part: Part, seen: Shown, now: float) -> list[Event]:
        """Tell what a tick did for a request; end it where it is over."""
        job, step, plan = part.job, part.step, part.job.plan
        error, is_last = part.error, part.step == part.job.plan.calls
        if error is None and not seen.finite[part.rows].all():
            error = FloatingPointError("the image is no longer finite")
        if error is not None or is_last:
            del self._jobs[part.request_id]
            self._runner.forget([part.request_id])
            self._served(job.caller, now)
        if error is not None:
            return [_failed(error)]
        happened: list[Event] = [events.Progress(step, plan.calls, job.eta(step, now))]
        pictures = seen.pictures[part.pictures]
        if not is_last:
            return happened + [events.Preview(step, i, picture) for i, picture in enumerate(pictures)]
        kept = seen.demerit[part.pictures].argsort(kind="stable")[: job.num_images]
        for i, k in enumerate(kept):
            near = None if plan.target is None else float(seen.resemblance[part.pictures][k])
            happened.append(events.Image(i, plan.seeds[k], near, pictures[k]))
        return [*happened, events.End(job.started - job.admitted, now - job.started, plan.work)]

    def _served(self, caller: str | None, now: float) -> None:
        """A request of a caller's is over, or he left it; who has none open is forgotten after a while."""
        waiting = {job.caller for job in self._jobs.values()}
        self._ended = {who: at for who, at in self._ended.items() if who in waiting or now - at < CREDIT}
        self._ended[caller] = now

    def _learn(self, seconds_per_row: float) -> None:
        self.seconds_per_row += 0.1 * (seconds_per_row - self.seconds_per_row)


def _failed(error: Exception) -> events.Failed:
    # Only the kind and the place of the error are logged. Its words may quote what was computed.
    place = traceback.extract_tb(error.__traceback__)[-1:]
    log.error("a request failed: %s in %s", type(error).__name__, [f"{f.name}:{f.lineno}" for f in place])
    if out_of_memory(error):
        return events.Failed("out_of_memory", "The device has too little memory for even one image.")
    return events.Failed("generation_failed", "The model failed on this request; it may be tried again.")
