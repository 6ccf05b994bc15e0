"""What signs of life tell of a version, and of one of its requests."""

from __future__ import annotations

import pytest

from ddpm_service.torchserve.pulse import Pulse

KEY, OTHER = ("faces", "1"), ("faces", "2")


class Clock:
    """One that is turned by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pulse(clock):
    return Pulse(clock)


def test_who_waits_is_overtaken_by_the_signs_that_others_get_later(pulse, clock):
    with pulse.asked(KEY) as waiting, pulse.asked(KEY) as other:
        clock.now += 3
        assert waiting.overtaken == 0
        other.answered()
        assert waiting.overtaken == 3
        clock.now += 10
        assert waiting.overtaken == 3
        waiting.answered()
        waiting.listen()
        assert waiting.overtaken == 0


def test_nobody_is_overtaken_by_those_of_another_version(pulse, clock):
    with pulse.asked(KEY) as waiting, pulse.asked(OTHER) as other:
        clock.now += 3
        other.answered()
        assert waiting.overtaken == 0


def test_nobody_is_overtaken_while_his_client_is_slow(pulse, clock):
    with pulse.asked(KEY) as slow, pulse.asked(KEY) as other:
        slow.answered()
        clock.now += 30
        other.answered()
        assert slow.overtaken == 0
        slow.listen()
        clock.now += 3
        other.answered()
        assert slow.overtaken == 3


def test_a_version_may_be_silent_for_longer_where_its_calls_last(pulse):
    pulse.took(KEY, 0.1)
    pulse.took(OTHER, 10.0)
    assert pulse.limit(KEY) < pulse.limit(OTHER)
