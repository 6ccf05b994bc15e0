"""What the supervisor makes of a models.yaml that changes."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from ddpm_service.errors import ServiceError
from ddpm_service.torchserve import supervise
from ddpm_service.torchserve.applied import wait_until_applied
from ddpm_service.torchserve.board import Board, State
from ddpm_service.torchserve.desired import changing
from ddpm_service.torchserve.management import ManagementError
from ddpm_service.torchserve.pulse import Pulse
from ddpm_service.torchserve.supervise import Supervisor
from tests.ddpm_service.torchserve.memory import Memory

FILE = 'models: {a: {default: "DEFAULT", versions: {"1.0": a_1.0.mar, "1.1": a_1.1.mar}}}\n'


class Supervised:
    """A supervisor of a TorchServe in memory, look by look."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.models, self.store, self.torchserve = folder / "models.yaml", folder / "model_store", Memory("1.0", "1.1")
        self.store.mkdir()
        (folder / "config.properties").touch()
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        monkeypatch.setattr(supervise, "Management", lambda _: self.torchserve)
        monkeypatch.setattr(supervise, "probe", self._probe)
        self.failure = ""
        self.supervisor = Supervisor(
            folder / "config.properties", self.models, board=Board(), drain=lambda _name, _version: None, pulse=Pulse()
        )
        monkeypatch.setattr(self.supervisor.server, "running", lambda: True)
        self.want("1.0")

    def _probe(self, *_: object) -> None:
        if self.failure:
            raise ServiceError(self.failure)

    @property
    def states(self) -> set[State]:
        return {each.state for each in self.supervisor._board.models()["a"].versions.values()}

    def want(self, default: str) -> None:
        self.models.write_text(FILE.replace("DEFAULT", default))

    def look(self, times: int = 3) -> str:
        """Return which version answers after some looks."""
        for _ in range(times):
            self.supervisor._watch()
        return self.torchserve.answering


@pytest.fixture
def supervised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Supervised:
    supervised = Supervised(tmp_path, monkeypatch)
    supervised.look()
    monkeypatch.setattr(logging.getLogger("ddpm"), "propagate", True)
    caplog.clear()
    return supervised


@pytest.mark.parametrize("failure", [ManagementError("too late"), ManagementError("refused", 500)])
def test_a_change_whose_application_fails_is_tried_again_and_the_failure_told_once(
    failure: ManagementError, supervised: Supervised, caplog: pytest.LogCaptureFixture
) -> None:
    supervised.torchserve.failures = [failure] * 3
    supervised.want("1.1")

    assert supervised.look(3) == "1.0"
    assert supervised.look(1) == "1.1"

    assert caplog.messages.count(str(failure)) == 1


@pytest.mark.parametrize("wrong", ["# für alle\n".encode("latin-1"), b"models: {a: {default: 0b_}}", b"[" * 3000])
def test_a_wrong_file_changes_nothing_and_is_told_once(
    wrong: bytes, supervised: Supervised, caplog: pytest.LogCaptureFixture
) -> None:
    supervised.models.write_bytes(wrong)

    assert supervised.look() == "1.0"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "is not YAML" in caplog.text

    supervised.want("1.1")
    assert supervised.look(1) == "1.1"


def test_a_change_that_was_applied_in_part_can_be_taken_back(supervised: Supervised) -> None:
    supervised.want("1.1")
    supervised.torchserve.failures = [ManagementError("too late")]
    supervised.look(1)
    supervised.torchserve.answering = "1.1"  # it was done all the same

    supervised.want("1.0")

    assert supervised.look(1) == "1.0"


def test_the_commands_hear_when_a_change_is_applied(supervised: Supervised) -> None:
    sockets = supervised.supervisor._sockets
    held = sockets.claim()
    supervised.want("1.1")
    supervised.torchserve.failures = [ManagementError("too late")]

    supervised.look(1)
    assert list(sockets.folder.iterdir()) == []
    supervised.look(1)

    said = wait_until_applied(sockets, supervised.models, pytest.fail)
    assert said is not None
    assert said.failed == []
    os.close(held)


class Deaf(Memory):
    """Its management answers nobody."""

    def ping(self) -> None:
        raise ManagementError("too late")


@pytest.fixture
def deaf(supervised: Supervised, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let TorchServe's management fall silent; what is done then is put into the list."""
    done: list[str] = []
    supervised.torchserve.__class__ = Deaf
    monkeypatch.setattr(supervise, "_DEAF_SECONDS", -1.0)
    monkeypatch.setattr(supervised.supervisor.server, "stop", lambda: done.append("stopped"))
    return done


def test_while_its_versions_answer_a_silent_management_stops_nothing(supervised: Supervised, deaf: list[str]) -> None:
    supervised.look(4)
    assert supervised.states == {State.READY}
    assert deaf == []


def test_a_torchserve_of_which_nothing_answers_is_told_and_started_again(
    supervised: Supervised, deaf: list[str]
) -> None:
    supervised.failure = "it made no image"
    supervised.look(1)
    assert supervised.states == {State.SILENT}
    with changing(supervised.store, taken=pytest.fail):  # a command has it load a version
        supervised.look(2)
    assert deaf == []
    supervised.look(2)
    assert deaf == ["stopped"]


def test_what_nobody_wants_goes_as_soon_as_it_is_seen(supervised: Supervised) -> None:
    supervised.torchserve.register("a_6.6.mar")
    supervised.look(1)
    assert supervised.torchserve.versions.keys() == {"1.0", "1.1"}


def test_a_change_waits_for_the_end_of_the_one_under_way(supervised: Supervised) -> None:
    with changing(supervised.store, taken=pytest.fail) as share:
        supervised.want("1.1")
        assert supervised.look() == "1.0"
        share()
        assert supervised.look() == "1.1"
        supervised.want("1.0")
        assert supervised.look() == "1.0"
