"""How many images fit into a network call: fewer when memory runs out, more again when it has sufficed for a while."""

from __future__ import annotations

import math
from collections.abc import Callable

PATIENCE = 300.0
"""Seconds after which twice as many are tried: what took the memory, a neighbour on the device, may be gone."""


class Room:
    """The limit of one device.

    Args:
        most: images a call where memory suffices.
        clock: seconds, monotonic.

    Attributes:
        rows: images a call, now.
    """

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self.rows = self._most = most
        self._clock = clock
        self._since = -math.inf

    def halve(self, tried: int) -> None:
        """Take note that memory did not suffice for a call of `tried` images."""
        if tried <= self.rows:  # else the call was begun before the limit was lowered
            self.rows = max(1, self.rows // 2)
        self._since = self._clock()

    def widen(self) -> None:
        """Double the limit if memory has sufficed for a while."""
        if self.rows < self._most and self._clock() - self._since >= PATIENCE:
            self.rows = min(2 * self.rows, self._most)
            self._since = self._clock()
