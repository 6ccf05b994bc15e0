"""Where the TorchServe of `ddpm serve` listens is its user's alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ddpm_service.errors import ServiceError
from ddpm_service.torchserve.server import running
from ddpm_service.torchserve.sockets import Sockets


@pytest.fixture
def sockets(tmp_path: Path) -> Sockets:
    return Sockets(tmp_path / "sockets")


def test_nobody_else_may_enter_its_folder(sockets: Sockets) -> None:
    os.close(sockets.claim())

    assert sockets.folder.stat().st_mode & 0o777 == 0o700


def test_a_configuration_is_served_once_at_a_time(sockets: Sockets) -> None:
    held = sockets.claim()

    with pytest.raises(ServiceError, match="runs already"):
        sockets.claim()
    assert sockets.in_use

    os.close(held)
    assert not sockets.in_use
    os.close(sockets.claim())


def test_what_a_killed_one_left_behind_is_removed(sockets: Sockets) -> None:
    (sockets.folder / "models").mkdir(parents=True)
    sockets.folder.chmod(0o700)
    (sockets.folder / "inference").touch()

    os.close(sockets.claim())

    assert list(sockets.folder.iterdir()) == []


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o711])
def test_a_folder_that_others_may_enter_is_refused(sockets: Sockets, mode: int) -> None:
    sockets.folder.mkdir()
    sockets.folder.chmod(mode)

    with pytest.raises(ServiceError, match="not this user's alone"):
        sockets.claim()


def test_a_link_that_somebody_put_there_is_refused(sockets: Sockets, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o700)
    (mine / "file").touch()
    sockets.folder.symlink_to(mine)

    with pytest.raises(ServiceError, match="cannot be used"):
        sockets.claim()
    assert (mine / "file").exists()


def test_the_commands_find_the_one_that_runs_and_else_the_ports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    config = tmp_path / "config.properties"
    config.write_text("management_address=http://127.0.0.1:9\n")
    assert running(config).management_url == "http://127.0.0.1:9"

    held = Sockets.of(config).claim()

    assert running(config).management_url == Sockets.of(config).management
    os.close(held)
