"""The capacity table: its formula against a queue that is played through, and the page against the formula."""

from __future__ import annotations

import math
import random
import runpy

import pytest

from tests.k8s.pod import ROOT

SCRIPT = runpy.run_path(str(ROOT / "k8s" / "capacity.py"))
MIX, LATE, Pod, table = (SCRIPT[name] for name in ("MIX", "LATE", "Pod", "table"))


def play(rate: float, step_seconds: float, requests: int = 200_000) -> list[float]:
    """The waits of requests that come at random to one server, in the order of their arrival."""
    chance = random.Random(0)
    shares = [share for _, _, share in MIX]
    works = [images * calls * step_seconds for images, calls, _ in MIX]
    waits, now, free = [], 0.0, 0.0
    for work in chance.choices(works, shares, k=requests):
        now += chance.expovariate(rate)
        waits.append(max(0.0, free - now))
        free = max(free, now) + work
    return sorted(waits)


def test_the_shares_of_the_mix_are_all_of_it():
    assert math.isclose(sum(share for _, _, share in MIX), 1)


@pytest.mark.parametrize(("step_seconds", "wait"), [(0.008, 5.0), (0.008, 2.0), (0.002, 2.0)])
def test_at_the_highest_rate_few_wait_longer_than_promised_and_a_little_above_it_too_many(step_seconds, wait):
    pod = Pod.of(step_seconds)
    highest = pod.highest_rate(wait)
    assert sum(each > wait for each in play(highest, step_seconds)) / 200_000 < 1.25 * LATE
    assert sum(each > wait for each in play(1.08 * highest, step_seconds)) / 200_000 > LATE


def test_the_wait_to_scale_on_is_what_nine_of_ten_wait_at_most():
    pod = Pod.of(0.008)
    rate = SCRIPT["SCALE_AT"] * pod.highest_rate(5.0)
    waits = play(rate, 0.008)
    assert waits[int(0.9 * len(waits))] == pytest.approx(pod.wait_of_nine_in_ten(rate), rel=0.15)


def test_more_than_a_pod_can_do_is_late():
    pod = Pod.of(0.008)
    assert pod.late(1.01 / pod.mean, 60) == 1


def test_the_operations_page_shows_what_the_script_prints():
    assert table([8, 6.7, 4, 2, 1], [1, 4, 16], 5) in (ROOT / "docs" / "operations.md").read_text()
