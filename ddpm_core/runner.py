"""The computing of ticks: images under way lie in one batch on the device, which requests join and leave."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable, Mapping

from ddpm_core.denoiser import Denoiser
from ddpm_core.device import is_lost, out_of_memory
from ddpm_core.plan import Plan
from ddpm_core.room import Room
from ddpm_core.sampling import Batch, advance

log = logging.getLogger(__name__)


class Runner:
    """The images of requests, how they advance and where they stand.

    Args:
        denoiser: the network.
        room: how many images one network call may have.

    Attributes:
        rows: of the last tick's batch, those that are a request's.
    """

    def __init__(self, denoiser: Denoiser, room: Room) -> None:
        self._denoiser = denoiser
        self.room = room
        self.rows: dict[str, range] = {}
        self._batch: Batch | None = None  # of the last tick, while it is needed
        self._waiting: dict[str, Batch] = {}  # begun, but not in the batch

    def advance(self, plans: Mapping[str, Plan]) -> tuple[Batch, dict[str, Exception]]:
        """Make one network call for every image of these requests; a request that is new begins.

        Returns:
            The batch of this tick, and why requests failed; the others are a call further.

        Raises:
            Exception: the device is lost (`ddpm_core.device.is_lost`); so is all that is under way.
        """
        batch = self._gather(plans)
        parts: list[Batch] = []
        failed: dict[int, Exception] = {}
        for outcome in self._in_parts(batch, self.room.rows):
            row = sum(map(len, parts))
            if isinstance(outcome, Exception):
                failed[row] = outcome
                outcome = batch.part(row, row + 1)
            parts.append(outcome)
        self._batch = Batch.join(parts)
        return self._batch, {
            request_id: next(failed[row] for row in rows if row in failed)
            for request_id, rows in self.rows.items()
            if any(row in failed for row in rows)
        }

    def forget(self, request_ids: Iterable[str]) -> None:
        """Let requests go; their images are gone with the next tick, or now if nobody else is there."""
        for request_id in request_ids:
            self.rows.pop(request_id, None)
            self._waiting.pop(request_id, None)
        if not self.rows:
            self._batch = None

    def _gather(self, plans: Mapping[str, Plan]) -> Batch:
        """Bring the images of these requests together; nothing moves while they are the same as before."""
        parts: list[Batch] = []
        if self._batch is not None:
            for request_id in self.rows.keys() - plans.keys():
                self._waiting[request_id] = self._batch.take(self.rows[request_id])
            stay = [row for request_id, rows in self.rows.items() if request_id in plans for row in rows]
            if stay:
                parts.append(self._batch if len(stay) == len(self._batch) else self._batch.take(stay))
        order = [request_id for request_id in self.rows if request_id in plans]
        for request_id in plans:
            if request_id not in self.rows:
                begun = self._waiting.pop(request_id, None)
                parts.append(begun or Batch.of(plans[request_id].start(), self._denoiser.device))
                order.append(request_id)
        self.rows, first = {}, 0
        for request_id in order:
            self.rows[request_id] = range(first, first + len(plans[request_id].seeds))
            first = self.rows[request_id].stop
        self._batch = Batch.join(parts)
        return self._batch

    def _advance(self, batch: Batch) -> list[Batch | Exception]:
        """Advance rows; where that fails, in parts until the rows that fail are alone: a batch is immutable."""
        try:
            return [advance(self._denoiser, batch)]
        except Exception as error:
            if is_lost(error):
                raise
            if len(batch) == 1:
                traceback.clear_frames(error.__traceback__)  # the error is kept for a while, but not what it computed
                return [error]
            if out_of_memory(error):
                self.room.halve(len(batch))
                rows = self.room.rows
                log.warning("out of memory with %d images in a call; from now on at most %d", len(batch), rows)
        # The error's frames held the failed call's memory. Here the error is gone, and so the memory is free.
        return self._in_parts(batch, min(len(batch) // 2, self.room.rows))

    def _in_parts(self, batch: Batch, size: int) -> list[Batch | Exception]:
        parts = [batch.part(first, first + size) for first in range(0, len(batch), size)]
        return [outcome for part in parts for outcome in self._advance(part)]
