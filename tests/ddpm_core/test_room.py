"""How many images a call takes, as memory comes and goes."""

from __future__ import annotations

import pytest

from ddpm_core.room import PATIENCE, Room


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_it_halves_from_the_present_limit_however_few_images_failed(clock: Clock) -> None:
    room = Room(64, clock)
    room.halve(3)
    assert room.rows == 32
    for _ in range(9):
        room.halve(1)
    assert room.rows == 1


def test_a_call_that_was_begun_before_the_limit_fell_says_nothing_new(clock: Clock) -> None:
    room = Room(64, clock)
    room.halve(64)
    room.halve(64)
    assert room.rows == 32


def test_it_widens_again_step_by_step_and_not_beyond_what_was_measured(clock: Clock) -> None:
    room = Room(48, clock)
    room.widen()
    assert room.rows == 48
    room.halve(48)
    room.halve(24)
    seen = []
    for _ in range(4):
        clock.now += PATIENCE / 2
        room.widen()
        seen.append(room.rows)
    assert seen == [12, 24, 24, 48]
    clock.now += PATIENCE
    room.widen()
    assert room.rows == 48


def test_a_probe_that_fails_waits_as_long_again(clock: Clock) -> None:
    room = Room(8, clock)
    room.halve(8)
    clock.now = PATIENCE
    room.widen()
    room.halve(8)
    clock.now = 1.9 * PATIENCE
    room.widen()
    assert room.rows == 4
    clock.now = 2 * PATIENCE
    room.widen()
    assert room.rows == 8
