"""A version is as ready as its last answer is recent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from ddpm_service.errors import ServiceError
from ddpm_service.torchserve.answers import Answers
from ddpm_service.torchserve.board import Board, State, VersionState
from ddpm_service.torchserve.pulse import Pulse

KEY = ("faces", "1")


class Watched:
    """One version, and a clock that is turned by hand."""

    def __init__(self) -> None:
        self.now, self.asked, self.failure, self.is_losing = 100.0, 0, "", False
        self.answering = threading.Event()  # while it is not set, nothing comes
        self.answering.set()
        self.lost = threading.Event()
        self.board = Board()
        self.board.put(*KEY, VersionState("faces_1.mar", State.READY))
        self.pulse = Pulse(lambda: self.now)
        self.answers = Answers(self.board, self.pulse, self._ask, lambda: self.now)
        self.answers.look(KEY)

    def _ask(self, *key: str) -> None:
        assert key == KEY
        answer = self.answering
        if self.is_losing:
            threading.current_thread().name, answer = "lost", self.lost
        self.asked += 1
        assert answer.wait(60)
        if self.failure:
            raise ServiceError(self.failure)

    def after(self, seconds: float) -> tuple[State, bool]:
        """Look after so many seconds; return where it stands, and whether it needs another worker."""
        self.now += seconds
        needs = self.answers.look(KEY)
        for thread in threading.enumerate():
            if self.answering.is_set() and thread.name.endswith("(_ask_it)"):
                thread.join(10)
        return self.board.models()["faces"].versions["1"].state, needs


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    watched.after(3600)  # nobody asked, so it did itself: it knows now how long a call lasts
    assert watched.asked == 1
    yield watched
    watched.answering.set()
    watched.lost.set()


def test_requests_that_wait_without_a_sign_of_life_make_it_silent_and_in_the_end_cost_it_its_worker(watched):
    watched.answering.clear()
    with watched.pulse.asked(KEY):
        assert watched.after(4) == (State.READY, False)
        assert watched.after(2) == (State.SILENT, False)
        assert watched.after(15) == (State.SILENT, False)
        assert watched.after(10) == (State.SILENT, True)


def test_a_request_to_which_nothing_comes_makes_nobody_silent_while_others_are_answered(watched):
    with watched.pulse.asked(KEY):
        for _ in range(10):
            assert watched.after(3) == (State.READY, False)
    assert 1 < watched.asked < 12


def test_a_request_of_ours_that_is_lost_costs_nobody_a_worker(watched):
    watched.is_losing = True
    watched.now += 4
    watched.answers.look(KEY)  # it asks itself, in vain
    while watched.asked < 2:
        time.sleep(0.01)
    watched.is_losing = False
    for _ in range(10):
        assert watched.after(3) == (State.READY, False)


def test_any_sign_of_life_of_any_request_makes_it_ready_again(watched):
    watched.answering.clear()
    with watched.pulse.asked(KEY), watched.pulse.asked(KEY) as asked:
        watched.after(6)
        asked.answered()
        assert watched.after(1) == (State.READY, False)
        assert watched.after(5) == (State.SILENT, False)


def test_clients_that_give_up_do_not_hide_a_silence(watched):
    watched.answering.clear()
    for _ in range(3):
        with watched.pulse.asked(KEY):
            watched.now += 2
    assert watched.answers.look(KEY) is False
    assert watched.board.models()["faces"].versions["1"].state is State.SILENT


def test_an_idle_version_is_asked_seldom_and_a_busy_one_not_at_all(watched):
    watched.after(1)
    assert watched.asked == 1
    watched.after(3)
    assert watched.asked == 2
    with watched.pulse.asked(KEY) as asked:
        for _ in range(3):
            watched.after(2)
            asked.answered()
    assert watched.asked == 2


def test_an_idle_version_that_fails_our_own_request_is_silent_until_it_answers_one(watched):
    watched.failure = "it made no image: HTTP 500"
    watched.after(4)
    assert watched.after(1) == (State.SILENT, False)
    assert watched.board.models()["faces"].versions["1"].reason == watched.failure
    watched.failure = ""
    watched.after(1)
    assert watched.after(1) == (State.READY, False)


def test_what_waits_for_a_former_worker_says_nothing_of_the_next(watched):
    watched.answering.clear()
    with watched.pulse.asked(KEY) as asked:
        watched.after(6)
        watched.answers.forget(KEY)
        watched.board.move(*KEY, State.READY)
        assert watched.after(1) == (State.READY, False)
        asked.answered()
    assert watched.after(1) == (State.READY, False)


def test_while_nothing_is_known_of_its_calls_it_has_more_time():
    watched = Watched()
    watched.answering.clear()
    with watched.pulse.asked(KEY):
        assert watched.after(10) == (State.READY, False)
        assert watched.after(5) == (State.SILENT, False)
    watched.answering.set()


def test_it_can_be_waited_for_whether_it_answers(watched):
    assert watched.answers.hear(KEY)
    assert watched.asked == 2
    watched.failure = "it made no image"
    assert not watched.answers.hear(KEY)
    assert watched.board.models()["faces"].versions["1"].state is State.SILENT
    watched.failure = ""
    watched.after(1)
    assert watched.after(1) == (State.READY, False)
