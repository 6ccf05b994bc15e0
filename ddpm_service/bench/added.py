"""What the front door adds to TorchServe: to the time of a request, and to the work."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import requests

from ddpm_service.bench.asking import post, seconds
from ddpm_service.torchserve.api import Api

_CLIENTS = 8
_IN_A_ROW = 6
_RESAMPLES = 400

T = TypeVar("T")


def added(front: str, behind: Api, *, steps: int = 9, pairs: int = 100, rounds: int = 16) -> dict[str, float]:
    """Ask through the front door and past it, with eight clients that never pause.

    There are two measures. What a request's way adds is seen where both ways meet the same machine at the same moment:
    each client asks both, in random order. What the work grows by is seen where all clients go one way, then all the
    other; a longer way could not be told from more work there, for the time of clients that never pause is the work.

    Args:
        front: the front door's address of a model, `…/predictions/NAME`.
        behind: the TorchServe behind it.
        steps: network calls of a request.
        pairs: how often each client asks both.
        rounds: how often all clients go the one way and the other.

    Returns:
        `added_ms`, by which the median grows, and `added_share`, by which the work does (the median round), with
        their standard errors.
    """
    direct = f"{behind.url}/predictions/{front.rpartition('/')[2]}"

    def at_once(do: Callable[[_Client], list[T]]) -> list[T]:
        return _at_once(behind.session, do)

    def all_ask(url: str) -> float:
        return sum(at_once(lambda client: client.ask(url, steps, _IN_A_ROW)))

    all_ask(direct)  # what comes first is slow
    pairs_seen = at_once(lambda client: [client.ask_both(front, direct, steps) for _ in range(pairs)])
    more, error = difference(pairs_seen)
    shares = []
    for i in range(rounds):
        ways = [front, direct] if i % 2 else [direct, front]  # what the first leaves behind meets both alike
        work = {way: all_ask(way) for way in ways}
        shares.append(work[front] / work[direct] - 1)
    return {
        "added_ms": 1000 * more,
        "added_ms_error": 1000 * error,
        "added_share": statistics.median(shares),
        "added_share_error": _error(statistics.median, shares),
    }


def difference(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """By how much the median of the first values is above that of the second, and the standard error.

    The error is found by resampling whole pairs: a machine that slows down slows both.
    """

    def of(pairs: Sequence[tuple[float, float]]) -> float:
        return statistics.median(one for one, _ in pairs) - statistics.median(other for _, other in pairs)

    return of(pairs), _error(of, pairs)


def _error(of: Callable[[list[T]], float], sample: Sequence[T]) -> float:
    """The standard error of a figure of a sample: how it spreads over samples as large, drawn from this one."""
    draw = random.Random(0)
    return statistics.stdev(of(draw.choices(sample, k=len(sample))) for _ in range(_RESAMPLES))


class _Client:
    """One client: a connection for each way, and its own dice."""

    def __init__(self, number: int, session: requests.Session) -> None:
        self._number = number
        self._draw = random.Random(number)
        self._session = session

    def ask(self, url: str, steps: int, count: int = 1) -> list[float]:
        """Seconds of so many requests, one after the other."""
        return [
            seconds(lambda: post(url, self._session, num_inference_steps=steps, seed=self._number))
            for _ in range(count)
        ]

    def ask_both(self, front: str, direct: str, steps: int) -> tuple[float, float]:
        """Seconds of a request through the front door and of one past it, whichever came first."""
        ways = [front, direct]
        self._draw.shuffle(ways)
        took = {way: self.ask(way, steps)[0] for way in ways}
        return took[front], took[direct]

    def leave(self) -> None:
        """Close the connections."""
        self._session.close()


def _at_once(session: Callable[[], requests.Session], do: Callable[[_Client], list[T]]) -> list[T]:
    """What eight clients saw who did this at one time."""

    def one(number: int) -> list[T]:
        client = _Client(number, session())
        try:
            return do(client)
        finally:
            client.leave()

    with ThreadPoolExecutor(_CLIENTS) as pool:
        return [each for seen in pool.map(one, range(_CLIENTS)) for each in seen]
