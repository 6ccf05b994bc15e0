"""Where a request stands, and a tick that is under way: what the engine remembers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpm_core.plan import Plan
from ddpm_core.transfer import Parcel


@dataclass(eq=False)
class Job:
    """Where one request stands.

    Attributes:
        left: (calls + 1,) work that one image has left after each call, in calls of the network alone.
        caller: who asks; None where nobody is known.
        position: last reported place in the queue.
        step: calls launched.
        is_over: no call will be launched any more.
    """

    plan: Plan
    num_images: int
    preview_every: int
    admitted: float
    left: NDArray[np.float64]
    caller: str | None = None
    position: int = -1
    started: float = math.inf
    step: int = 0
    is_over: bool = False

    @property
    def rows(self) -> int:
        """Give the number of its images."""
        return len(self.plan.seeds)

    @property
    def work_left(self) -> float:
        """Give the work of the calls that are not launched, of all images."""
        return float(self.left[self.step]) * self.rows

    def eta(self, step: int, now: float) -> float:
        """Give the seconds that are left after so many calls, at the pace so far."""
        left = float(self.left[step])
        return round((now - self.started) / (float(self.left[0]) - left) * left, 3)


@dataclass(frozen=True, eq=False)
class Part:
    """What a tick did for one request.

    Attributes:
        step: calls made with it.
        rows: of the tick's batch.
        pictures: of those that leave the device with it.
        error: why it failed.
    """

    request_id: str
    job: Job
    step: int
    rows: slice
    pictures: slice
    error: Exception | None


@dataclass(frozen=True, eq=False)
class Flight:
    """A tick that is launched, and that the device may still be at.

    Attributes:
        begin: when it was launched.
        work: of all its rows.
        parts: what it did.
        shown: on its way to the host.
    """

    begin: float
    work: float
    parts: list[Part]
    shown: Parcel
