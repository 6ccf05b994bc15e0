"""The open-loop load: the same for every arm, and honest about failures."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from aiohttp import web

from ddpm_service.bench.load import (
    STEPS,
    Arrival,
    Outcome,
    burst,
    percentile,
    play,
    poisson,
    share_in_time,
)

SOLO = {6: 1.0, 18: 3.0, 60: 10.0}


def outcome(seconds: float, status: int = 200, steps: int = 6) -> Outcome:
    return Outcome(Arrival(0.0, steps, 0), status, seconds)


def test_the_same_arrivals_for_every_arm_at_the_rate_asked_for():
    arrivals = poisson(4.0, 2000)
    assert arrivals == poisson(4.0, 2000)
    assert arrivals != poisson(4.0, 2000, seed=1)
    assert [each.at for each in arrivals] == sorted(each.at for each in arrivals)
    assert arrivals[-1].at == pytest.approx(500, rel=0.1)
    shares = Counter(each.steps for each in arrivals)
    assert shares.keys() == set(STEPS)
    assert min(shares.values()) > 600


def test_a_burst_comes_at_once():
    assert {each.at for each in burst(10)} == {0.0}
    assert len({each.seed for each in burst(10)}) == 10


def test_in_time_is_measured_by_the_requests_own_length_and_a_failure_never_is():
    outcomes = [outcome(1.9), outcome(2.1), outcome(2.1, steps=18), outcome(0.1, status=503)]
    assert share_in_time(outcomes, SOLO, 2.0) == 0.5
    assert share_in_time(outcomes, SOLO, 5.0) == 0.75


def test_percentiles_count_failures_as_endless():
    outcomes = [outcome(float(n)) for n in range(9)] + [outcome(0.0, status=500)]
    assert percentile(outcomes, 0.5) == 5.0
    assert percentile(outcomes, 0.95) is None


def test_latency_counts_from_the_scheduled_arrival_and_one_request_does_not_wait_for_another():
    order: list[int] = []
    others = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        seed = (await request.json())["seed"]
        if seed == 0:
            await others.wait()
        order.append(seed)
        if len(order) == 2:
            others.set()
        return web.Response(status=503 if seed == 2 else 200)

    async def run() -> list[Outcome]:
        application = web.Application()
        application.router.add_post("/", answer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        try:
            arrivals = [Arrival(0.0, 6, 0), Arrival(0.05, 6, 1), Arrival(0.1, 6, 2)]
            return await play(url, arrivals, patience=10)
        finally:
            await runner.cleanup()

    outcomes = asyncio.run(run())
    assert order[-1] == 0
    assert [each.status for each in outcomes] == [200, 200, 503]
    assert outcomes[0].seconds >= 0.1  # when the last one was sent


def test_what_does_not_answer_is_a_failure():
    (found,) = asyncio.run(play("http://127.0.0.1:9/", [Arrival(0.0, 6, 0)], patience=1))
    assert found.status == 0
