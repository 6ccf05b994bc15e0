"""One writer at a time; the second one is told who holds it, and a lock dies with its process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm_core.errors import InvalidInput
from ddpm_core.writer import only_writer

PROGRAM = """
import sys, time
from pathlib import Path
from ddpm_core.writer import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["folder", "file", "new", "deep/new"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What is written: a folder that is there, a file, something to be made, also in folders that are to be made."""
    path = tmp_path / request.param
    if request.param == "folder":
        path.mkdir()
    if request.param == "file":
        path.touch()
    return path


def test_the_second_writer_is_told_which_process_the_first_one_is(path: Path) -> None:
    with only_writer(path):
        told = f"is being written by process {os.getpid()}"
        with pytest.raises(InvalidInput, match=told) as refusal, only_writer(path):
            pass
        assert (refusal.value.code, refusal.value.field, refusal.value.given) == ("held", "out", str(path))
    with only_writer(path):
        pass


def test_nothing_is_left_beside_what_is_written(path: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with only_writer(path):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_others_are_not_disturbed(path: Path, tmp_path: Path) -> None:
    with only_writer(path), only_writer(tmp_path / "another"), only_writer(tmp_path / "deep" / "another"):
        pass


def test_it_is_held_under_every_name(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    with only_writer(tmp_path / "run"), pytest.raises(InvalidInput), only_writer(tmp_path / "link"):
        pass


def test_a_lock_dies_with_its_process(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InvalidInput, match=rf"process {other.pid} \(python"), only_writer(path):
            pass
        other.kill()
        other.wait(30)
        with only_writer(path):
            pass
