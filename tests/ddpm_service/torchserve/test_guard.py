"""The guard leaves no process behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

# A parent with a child, as TorchServe's launcher has its Java; both ignore SIGTERM when they are told to.
FAMILY = """
import signal, subprocess, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "child" not in sys.argv:
    subprocess.Popen([sys.executable, __file__, "child", *sys.argv[1:]])
    print("up", flush=True)
if "brief" in sys.argv and "child" not in sys.argv:
    sys.exit(3)
time.sleep(60)
"""


@pytest.fixture
def start(tmp_path: Path):
    script = tmp_path / "family.py"
    script.write_text(FAMILY)
    started = []

    def start(*words: str) -> tuple[subprocess.Popen[str], Path]:
        folder = tmp_path / "folder"
        (folder / "models").mkdir(parents=True)
        guard = subprocess.Popen(
            [sys.executable, "-m", "ddpm_service.torchserve.guard", str(folder), sys.executable, str(script), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(guard)
        assert guard.stdout is not None
        assert guard.stdout.readline() == "up\n"
        return guard, folder

    yield start
    for guard in started:
        guard.kill()
        guard.communicate()


def session_of(guard: subprocess.Popen[str]) -> list[int]:
    members = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getsid(process.pid) == guard.pid and process.info["status"] != psutil.STATUS_ZOMBIE:
                members.append(process.pid)
        except ProcessLookupError:
            continue
    return members


def test_when_its_lifeline_closes_everything_ends(start):
    guard, folder = start()
    assert len(session_of(guard)) == 3

    guard.communicate()

    assert guard.returncode == 0
    assert session_of(guard) == []
    assert not folder.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_when_it_is_told_to_everything_ends(number, start):
    guard, folder = start()

    guard.send_signal(number)
    guard.wait(20)

    assert guard.returncode == 0
    assert session_of(guard) == []
    assert not folder.exists()


def test_when_the_command_ends_by_itself_its_children_go_too(start):
    guard, folder = start("brief")

    assert guard.wait(20) == 3
    assert session_of(guard) == []
    assert not folder.exists()


def test_who_does_not_listen_is_killed(start, monkeypatch):
    guard, _ = start("stubborn")

    guard.communicate()

    assert session_of(guard) == []
