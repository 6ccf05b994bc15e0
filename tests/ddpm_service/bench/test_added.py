"""What one way takes longer than another, found among noise, with its error."""

from __future__ import annotations

import random

import pytest

from ddpm_service.bench.added import difference


def drawn(median: float, count: int, seed: int) -> list[float]:
    draw = random.Random(seed)
    return [draw.gauss(median, 0.03) for _ in range(count)]


def test_the_difference_of_medians_is_found_within_its_error():
    more, error = difference(drawn(0.905, 800, 1), drawn(0.9, 800, 2))
    assert abs(more - 0.005) < 3 * error
    assert 0.001 < error < 0.003


def test_outliers_do_not_count():
    ones, others = drawn(0.9, 400, 1), drawn(0.9, 400, 2)
    plain, _ = difference(ones, others)
    late, _ = difference([*ones, 30.0, 40.0], others)
    assert late == pytest.approx(plain, abs=0.001)


def test_more_requests_make_the_error_smaller():
    _, few = difference(drawn(0.9, 50, 1), drawn(0.9, 50, 2))
    _, many = difference(drawn(0.9, 800, 1), drawn(0.9, 800, 2))
    assert many < few / 2


def test_the_same_requests_give_the_same_answer():
    ones, others = drawn(0.91, 100, 1), drawn(0.9, 100, 2)
    assert difference(ones, others) == difference(ones, others)
