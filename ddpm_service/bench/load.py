"""An open-loop load: arrivals drawn beforehand, the same for every arm, each timed from when it should have come."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp

STEPS = (6, 18, 60)
"""Network calls that requests ask for, equally often."""


@dataclass(frozen=True)
class Arrival:
    """One request: when it comes (seconds after the start), how many calls, and its seed."""

    at: float
    steps: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What became of an arrival: its status (0 = no answer), and the seconds from its scheduled time to its end."""

    arrival: Arrival
    status: int
    seconds: float

    def in_time(self, solo: Mapping[int, float], factor: float) -> bool:
        """Whether it was answered within so many times its solo latency; a failure never is."""
        return self.status == 200 and self.seconds <= factor * solo[self.arrival.steps]

    def line(self, **more: Any) -> dict[str, Any]:
        """The raw figures."""
        return {**more, **asdict(self.arrival), "status": self.status, "seconds": round(self.seconds, 5)}


def poisson(rate: float, count: int, seed: int = 0) -> list[Arrival]:
    """So many arrivals at so many a second, of mixed step counts; the same seed draws the same."""
    draw = random.Random(f"{rate}:{count}:{seed}")
    at, arrivals = 0.0, []
    for number in range(count):
        at += draw.expovariate(rate)
        arrivals.append(Arrival(at, draw.choice(STEPS), number))
    return arrivals


def burst(count: int, seed: int = 0) -> list[Arrival]:
    """So many arrivals at once, of mixed step counts."""
    draw = random.Random(f"burst:{count}:{seed}")
    return [Arrival(0.0, draw.choice(STEPS), number) for number in range(count)]


async def play(url: str, arrivals: Sequence[Arrival], *, patience: float) -> list[Outcome]:
    """Send each arrival at its time, whatever became of those before; give each so many seconds.

    Args:
        url: takes `POST` of JSON with `num_inference_steps` and `seed`, answers one PNG.
        arrivals: in order of time.
        patience: seconds after which an answer is not waited for any more.
    """
    timeout = aiohttp.ClientTimeout(total=patience)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        begin = time.perf_counter()

        async def send(arrival: Arrival) -> Outcome:
            await asyncio.sleep(begin + arrival.at - time.perf_counter())
            status = 0
            body = {"num_images": 1, "num_inference_steps": arrival.steps, "seed": arrival.seed}
            try:
                async with session.post(url, json=body, headers={"Accept": "image/png"}) as answer:
                    await answer.read()
                    status = answer.status
            except (TimeoutError, aiohttp.ClientError):
                pass
            return Outcome(arrival, status, time.perf_counter() - begin - arrival.at)

        return await asyncio.gather(*map(send, arrivals))


def percentile(outcomes: Sequence[Outcome], share: float) -> float | None:
    """The latency that so large a share did not exceed, failures counted as endless; None if that is a failure's."""
    seconds = sorted(each.seconds if each.status == 200 else float("inf") for each in outcomes)
    found = seconds[min(len(seconds) - 1, int(share * len(seconds)))]
    return None if found == float("inf") else found


def share_in_time(outcomes: Sequence[Outcome], solo: Mapping[int, float], factor: float) -> float:
    """The share of requests answered within `factor` times their solo latency."""
    return sum(each.in_time(solo, factor) for each in outcomes) / len(outcomes)
