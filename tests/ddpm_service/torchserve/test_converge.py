"""Converging, where a real TorchServe would need a mishap at the right moment."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ddpm_service.torchserve import converge
from ddpm_service.torchserve.board import Board, State
from ddpm_service.torchserve.converge import Converger
from ddpm_service.torchserve.desired import Desired
from tests.ddpm_service.torchserve.memory import Memory, write_archive


@pytest.fixture(autouse=True)
def images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converge, "probe", lambda *_: None)


def wanted(*versions: str) -> Desired:
    model = {"default": versions[0], "versions": {version: f"a_{version}.mar" for version in versions}}
    return Desired.model_validate({"models": {"a": model}})


def test_a_version_whose_worker_is_dead_is_unloaded_too(tmp_path: Path) -> None:
    management = Memory("1.0", "2.0")
    management.kill("2.0")
    without = wanted("1.0", "2.0").with_workers("a", "2.0", 0)

    report = Converger(management, "", tmp_path).apply(without)

    assert report.done == ["a 2.0: unloaded"]
    assert management.versions["2.0"].workers == ()
    assert not Converger(management, "", tmp_path).apply(without).done


def test_an_archive_that_comes_late_is_shown_with_what_it_tells(tmp_path: Path) -> None:
    board, management = Board(), Memory("1.0")
    converger = Converger(management, "", tmp_path, board=board)
    both = wanted("1.0", "2.0")
    assert (("a", "2.0") in converger.apply(both).failed, board.models()["a"].versions["2.0"].manifest) == (True, {})

    write_archive(tmp_path, "2.0")

    assert not converger.apply(both).failed
    shown = board.models()["a"].versions["2.0"]
    assert (shown.state, shown.manifest["version"]) == (State.READY, "2.0")


def test_only_bytes_that_were_vouched_for_are_loaded(tmp_path: Path) -> None:
    listed = tmp_path / "models.sha256"
    listed.write_text("# by hand\n")
    converger = Converger(Memory("1.0"), "", tmp_path, vouched=listed)
    write_archive(tmp_path, "2.0")
    both, archive = wanted("1.0", "2.0"), tmp_path / "a_2.0.mar"

    assert converger.apply(both).failed["a", "2.0"] == "a_2.0.mar has no line in models.sha256"
    listed.write_text(f"{hashlib.sha256(b'others').hexdigest()}  a_2.0.mar\n")
    assert converger.apply(both).failed["a", "2.0"] == "a_2.0.mar is not the one of models.sha256"
    listed.write_text(f"{hashlib.sha256(archive.read_bytes()).hexdigest()} *a_2.0.mar\n")
    assert not converger.apply(both).failed


def test_a_version_that_failed_and_is_not_wanted_any_more_is_forgotten(tmp_path: Path) -> None:
    board = Board()
    converger = Converger(Memory("1.0"), "", tmp_path, board=board)
    assert ("a", "2.0") in converger.apply(wanted("1.0", "2.0")).failed

    converger.apply(wanted("1.0"))

    assert board.models()["a"].versions.keys() == {"1.0"}
