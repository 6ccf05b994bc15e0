"""The step engine: admits plans, decides who advances, ticks, and reports events. Knows no server.

An image's remaining work is known exactly, so the engine runs shortest-remaining-first with ageing: requests are
ordered by their arrival plus the seconds of work they have left. A short request overtakes a long one that came just
before it, and nobody is overtaken by those who come later than its own work would have taken.
"""

from __future__ import annotations

import logging
import math
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from ddpm_core import events
from ddpm_core.denoiser import Denoiser
from ddpm_core.device import is_lost, out_of_memory
from ddpm_core.errors import InvalidInput
from ddpm_core.events import Event
from ddpm_core.pixels import to_pixels
from ddpm_core.plan import Plan
from ddpm_core.ranking import best, resemblance
from ddpm_core.room import Room
from ddpm_core.sampling import SampleState, advance

log = logging.getLogger(__name__)


class Busy(Exception):
    """The engine is full; come back in about `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"The service is full; try again in about {retry_after} s.")
        self.retry_after = retry_after


@dataclass(eq=False)
class _Job:
    """Where one request stands."""

    plan: Plan
    num_images: int
    preview_every: int
    admitted: float
    cost: NDArray[np.float64]  # (calls,), of one image
    position: int = -1  # last reported place in the queue
    started: float = math.inf
    states: list[SampleState] = field(default_factory=list)  # empty until started

    @property
    def step(self) -> int:
        return self.states[0].position if self.states else 0

    @property
    def rows(self) -> int:
        return len(self.plan.seeds)

    @property
    def work_done(self) -> float:
        return float(self.cost[: self.step].sum()) * self.rows

    @property
    def work_left(self) -> float:
        return float(self.cost[self.step :].sum()) * self.rows


class StepEngine:
    """Runs many requests on one network, a step at a time.

    Args:
        denoiser: the network.
        max_rows: images in one network call, as far as memory goes (`ddpm_core.room`).
        seconds_per_row: first estimate of a network call's time per image; corrected while running.
        guide_cost: a call of the guide, in calls of the network.
        capacity: open requests; one more is refused with `Busy`.
        max_work: work that one request may ask for: network calls × images, guided ones at what they cost.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        max_rows: int,
        seconds_per_row: float = 0.01,
        guide_cost: float = 0.0,
        capacity: int = 64,
        max_work: int = 8000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.denoiser = denoiser
        self._room = Room(max_rows, clock)
        self.seconds_per_row = seconds_per_row
        self.guide_cost = guide_cost
        self.capacity = capacity
        self.max_work = max_work
        self._clock = clock
        self._jobs: dict[str, _Job] = {}

    def __len__(self) -> int:
        """Give the number of open requests."""
        return len(self._jobs)

    def __contains__(self, request_id: str) -> bool:
        """Tell whether a request is open."""
        return request_id in self._jobs

    @property
    def max_rows(self) -> int:
        """Images in one network call, now."""
        return self._room.rows

    @max_rows.setter
    def max_rows(self, most: int) -> None:
        self._room = Room(most, self._clock)

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
    ) -> None:
        """Take a request in.

        Args:
            request_id: not open already.
            plan: what to do.
            num_images: keep the best so many of the plan's images; all unless said.
            preview_every: calls between previews; 0 for none.
            max_work: a limit of this request's own below the engine's.

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
        self._jobs[request_id] = _Job(plan, num_images or len(plan.seeds), preview_every, self._clock(), cost)

    def check_room(self, coming: int = 0) -> None:
        """Raise `Busy` if the engine is full, or will be with so many who are on their way to it."""
        if len(self._jobs) + coming >= self.capacity:
            raise Busy(max(1, math.ceil(self.backlog_seconds / max(1, len(self._jobs)))))

    def retain(self, request_ids: Collection[str]) -> int:
        """Drop every open request that is not in `request_ids`; give how many were dropped."""
        gone = self._jobs.keys() - set(request_ids)
        for request_id in gone:
            del self._jobs[request_id]
        return len(gone)

    def tick(self) -> list[tuple[str, Event]]:
        """Advance those whose turn it is by one network call each; give what happened, with the requests' ids.

        Raises:
            Exception: the device is lost (`ddpm_core.device.is_lost`); so is all that is under way.
        """
        self._room.widen()
        order = sorted(self._jobs, key=self._due)
        chosen = self._choose(order)
        happened = self._start(chosen)
        happened += self._report_queue([request_id for request_id in order if request_id not in chosen])
        if not chosen:
            return happened
        jobs = [self._jobs[request_id] for request_id in chosen]
        states = [state for job in jobs for state in job.states]
        work = sum(job.cost[job.step] * job.rows for job in jobs)
        begin = self._clock()
        outcomes = [
            outcome
            for first in range(0, len(states), self.max_rows)
            for outcome in self._advance(states[first : first + self.max_rows])
        ]
        self._learn((self._clock() - begin) / float(work))
        for request_id, job in zip(chosen, jobs, strict=True):
            mine, outcomes = outcomes[: job.rows], outcomes[job.rows :]
            happened += [(request_id, event) for event in self._proceed(request_id, job, mine)]
        return happened

    def _due(self, request_id: str) -> float:
        job = self._jobs[request_id]
        return job.admitted + job.work_left * self.seconds_per_row

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
            if not job.states:
                job.started = self._clock()
                job.states = [state.to(self.denoiser.device) for state in job.plan.start()]
                happened.append((request_id, events.Started(job.started - job.admitted)))
        return happened

    def _report_queue(self, waiting: Sequence[str]) -> list[tuple[str, Event]]:
        happened: list[tuple[str, Event]] = []
        running = sum(1 for job in self._jobs.values() if job.states)
        for position, request_id in enumerate(
            request_id for request_id in waiting if not self._jobs[request_id].states
        ):
            job = self._jobs[request_id]
            if job.position != running + position:
                job.position = running + position
                happened.append((request_id, events.Queued(job.position)))
        return happened

    def _advance(self, states: Sequence[SampleState]) -> list[SampleState | Exception]:
        """Advance rows; where that fails, in parts until the rows that fail are alone: states are immutable."""
        try:
            advanced = advance(self.denoiser, states)
        except Exception as error:
            if is_lost(error):
                raise
            if len(states) == 1:
                traceback.clear_frames(error.__traceback__)  # the error is kept for a while, but not what it computed
                return [error]
            if out_of_memory(error):
                self._room.halve(len(states))
                log.warning(
                    "out of memory with %d images in a call; from now on at most %d", len(states), self.max_rows
                )
        else:
            finite = torch.stack([state.x for state in advanced]).isfinite().flatten(1).all(1).tolist()
            return [
                state if ok else FloatingPointError("the image is no longer finite")
                for state, ok in zip(advanced, finite, strict=True)
            ]
        # The error's frames held the failed call's memory. Here the error is gone, and so the memory is free.
        part = min(len(states) // 2, self.max_rows)
        return [
            outcome for first in range(0, len(states), part) for outcome in self._advance(states[first : first + part])
        ]

    def _proceed(self, request_id: str, job: _Job, outcomes: Sequence[SampleState | Exception]) -> list[Event]:
        """Take a request's rows a step further, or end it."""
        states = [outcome for outcome in outcomes if isinstance(outcome, SampleState)]
        if len(states) < len(outcomes):
            del self._jobs[request_id]
            return [_failed(next(outcome for outcome in outcomes if isinstance(outcome, Exception)))]
        job.states = states
        now = self._clock()
        left = job.plan.calls - job.step
        happened: list[Event] = [
            events.Progress(job.step, job.plan.calls, round((now - job.started) / job.work_done * job.work_left, 3))
        ]
        if left and job.preview_every and job.step % job.preview_every == 0:
            happened += [
                events.Preview(job.step, i, to_pixels(state.x0_prev))
                for i, state in enumerate(states)
                if state.x0_prev is not None
            ]
        if not left:
            del self._jobs[request_id]
            images, target = torch.stack([state.x for state in states]), states[0].target
            try:
                kept = best(self.denoiser, images, target, job.num_images, rows=self.max_rows)
                near = [*resemblance(images, target)] if target is not None else [None] * len(states)
            except Exception as error:
                if is_lost(error):
                    raise
                return [*happened, _failed(error)]
            happened += [events.Image(i, states[k].seed, near[k], to_pixels(states[k].x)) for i, k in enumerate(kept)]
            happened.append(events.End(job.started - job.admitted, now - job.started, job.plan.work))
        return happened

    def _learn(self, seconds_per_row: float) -> None:
        self.seconds_per_row += 0.1 * (seconds_per_row - self.seconds_per_row)


def _failed(error: Exception) -> events.Failed:
    # Only the kind and the place of the error are logged. Its words may quote what was computed.
    place = traceback.extract_tb(error.__traceback__)[-1:]
    log.error("a request failed: %s in %s", type(error).__name__, [f"{f.name}:{f.lineno}" for f in place])
    if out_of_memory(error):
        return events.Failed("out_of_memory", "The device has too little memory for even one image.")
    return events.Failed("generation_failed", "The model failed on this request; it may be tried again.")
