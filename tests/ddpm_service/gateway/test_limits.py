"""How much each caller may ask, and how much is held at one time."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from ddpm_api import ApiError, Error
from ddpm_service.gateway.auth import ANONYMOUS, Caller
from ddpm_service.gateway.limits import Limits
from ddpm_service.gateway.settings import Settings

ALICE, BOB = Caller("alice"), Caller("bob")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def limits(clock, **settings) -> Limits:
    return Limits(Settings(**settings), clock)


def refusal(enter) -> Error:
    with pytest.raises(ApiError) as caught, enter:
        pass
    return caught.value.error


def test_a_token_has_a_rate_that_says_when_to_come_back(clock):
    held = limits(clock, rate_per_minute=2)
    for _ in range(2):
        with held.caller(ALICE):
            pass

    error = refusal(held.caller(ALICE))
    assert (error.status, error.retry_after, error.allowed) == (429, 30, "2 requests a minute")
    with held.caller(BOB):
        pass

    clock.now += error.retry_after
    with held.caller(ALICE):
        pass
    assert refusal(held.caller(ALICE)).status == 429


def test_a_token_has_so_many_places_and_gets_them_back(clock):
    held = limits(clock, max_open_per_token=2)
    with held.caller(ALICE), held.caller(ALICE):
        error = refusal(held.caller(ALICE))
        assert (error.code, error.allowed) == ("rate_limited", "2 requests at one time")
    with held.caller(ALICE), held.caller(ALICE):
        pass


def test_who_needs_no_token_has_no_limit_of_its_own(clock):
    held = limits(clock, max_open_per_token=1, rate_per_minute=1)
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(held.caller(Caller(ANONYMOUS)))


def test_each_version_has_its_own_bounded_queue(clock):
    held = limits(clock, max_open=1)
    with held.place("faces", "1"):
        error = refusal(held.place("faces", "1"))
        assert (error.status, error.code) == (503, "busy")
        assert error.retry_after
        with held.place("faces", "2"):
            pass
    with held.place("faces", "1"):
        pass


def test_uploads_are_bounded_one_by_one_and_together(clock):
    held = limits(clock, max_bytes=2000, max_upload_bytes=3000)
    assert refusal(held.upload(2001)).status == 413
    with held.upload(1500) as first:
        first.hold(1500)
        with held.upload(0) as second:
            second.hold(1500)
            assert refusal(held.upload(1)).code == "busy"
        assert refusal(held.upload(2000)).code == "busy"
    with held.upload(2000):
        pass


def test_an_upload_that_grows_beyond_the_room_is_refused_and_frees_its_own(clock):
    held = limits(clock, max_bytes=2000, max_upload_bytes=3000)
    with held.upload(0) as first:
        first.hold(2000)
        with held.upload(0) as second:
            second.hold(1000)
            with pytest.raises(ApiError, match="uploads"):
                second.hold(1001)
        with held.upload(1000) as third:
            third.hold(1000)


def test_what_is_only_announced_shuts_nobody_out(clock):
    held = limits(clock, max_bytes=2000, max_upload_bytes=3000)
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(held.upload(2000))
        with held.upload(2000) as upload:
            upload.hold(2000)
