"""The board: what is served now, one consistent picture at a time."""

from __future__ import annotations

from ddpm_service.torchserve.board import Board, State, VersionState


def version(number: str, state: State = State.LOADING) -> VersionState:
    return VersionState(f"faces_{number}.mar", state)


def test_the_first_version_answers_until_another_is_told_to():
    board = Board()
    board.put("faces", "1", version("1"))
    board.put("faces", "2", version("2"))
    assert board.models()["faces"].default == "1"
    board.answer("faces", "2")
    assert board.models()["faces"].default == "2"


def test_it_is_ready_once_started_while_each_default_is():
    board = Board()
    board.put("faces", "1", version("1", State.READY))
    assert not board.ready  # nobody said that the wanted state was reached
    board.started()
    assert board.ready
    board.put("cats", "1", version("1"))
    assert not board.ready
    board.move("cats", "1", State.READY)
    board.put("cats", "2", version("2", State.FAILED))
    assert board.ready


def test_a_picture_once_taken_does_not_change():
    board = Board()
    board.put("faces", "1", version("1"))
    before = board.models()
    board.move("faces", "1", State.FAILED, "ValueError: broken")
    board.remove("faces", "1")
    assert before["faces"].versions["1"].state is State.LOADING
    assert board.models() == {}


def test_without_its_default_a_model_falls_back_on_a_version_that_is_left():
    board = Board()
    for number in "12":
        board.put("faces", number, version(number))
    board.remove("faces", "1")
    assert board.models()["faces"].default == "2"


def test_what_is_not_on_it_is_not_put_there_by_a_move_or_a_removal():
    board = Board()
    board.move("faces", "1", State.READY)
    board.remove("faces", "1")
    board.put("faces", "1", version("1"))
    board.move("faces", "2", State.READY)
    assert board.models()["faces"].versions.keys() == {"1"}


def test_listeners_hear_of_every_change():
    board, heard = Board(), []
    board.listen(lambda: heard.append(board.models().get("faces")))
    board.put("faces", "1", version("1"))
    board.move("faces", "1", State.READY)
    board.remove("faces", "1")
    assert [model and model.ready for model in heard] == [False, True, None]
