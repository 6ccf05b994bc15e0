"""Timing of calls in turn, so that drift of a shared machine hits all alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch


def in_turn(calls: Sequence[Callable[[], object]], repeats: int, *, budget: float = math.inf) -> list[list[float]]:
    """Time several calls A B A B …, after one of each to warm up.

    Args:
        calls: what to time; work on a GPU is waited for.
        repeats: timed rounds.
        budget: seconds after which no further round is begun; at least one is timed.

    Returns:
        For each call its seconds, a number a round.
    """
    times: list[list[float]] = [[] for _ in calls]
    started = time.perf_counter()
    for turn in range(1 + repeats):
        if turn > 1 and time.perf_counter() - started > budget:
            break
        for call, its_times in zip(calls, times, strict=True):
            begin = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                its_times.append(time.perf_counter() - begin)
    return times
