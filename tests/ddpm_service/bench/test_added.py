"""What one way takes longer than another, found among noise, with its error."""

from __future__ import annotations

import random

import pytest

from ddpm_service.bench.added import difference


def pairs(more: float, count: int, *, slower: float = 0.0) -> list[tuple[float, float]]:
    """Requests of 0.9 s by two ways, the first `more` longer, on a machine that becomes slower by and by."""
    draw = random.Random(count)
    now = [0.9 + slower * i / count for i in range(count)]
    return [(draw.gauss(base + more, 0.03), draw.gauss(base, 0.03)) for base in now]


def test_the_difference_of_medians_is_found_within_its_error():
    more, error = difference(pairs(0.005, 800))
    assert abs(more - 0.005) < 3 * error
    assert 0.001 < error < 0.003


def test_outliers_do_not_count():
    seen = pairs(0.0, 400)
    plain, _ = difference(seen)
    late, _ = difference([*seen, (30.0, 0.9), (40.0, 0.9)])
    assert late == pytest.approx(plain, abs=0.001)


def test_more_requests_make_the_error_smaller():
    _, few = difference(pairs(0.0, 50))
    _, many = difference(pairs(0.0, 800))
    assert many < few / 2


def test_a_machine_that_slows_down_adds_little_error_as_both_ways_meet_it():
    seen = pairs(0.005, 800, slower=1.0)
    more, error = difference(seen)
    assert abs(more - 0.005) < 3 * error
    shuffled = random.Random(0).sample([other for _, other in seen], k=len(seen))
    _, apart = difference([(one, other) for (one, _), other in zip(seen, shuffled, strict=True)])
    assert error < apart / 2


def test_the_same_requests_give_the_same_answer():
    assert difference(pairs(0.01, 100)) == difference(pairs(0.01, 100))
