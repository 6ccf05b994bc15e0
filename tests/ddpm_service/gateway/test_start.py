"""Starting `ddpm serve`: light, and refused where it would be unsafe or impossible, in one line."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from ddpm_service.cli import app


@pytest.fixture(autouse=True)
def log_settings_are_kept():
    root, own = logging.getLogger(), logging.getLogger("ddpm")
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["serve", "--port", "0", "--grpc-port", "0", "--metrics-port", "0", *arguments])
    assert result.exit_code == 1
    return result.stderr.strip().splitlines()[-1]


def test_the_front_door_needs_no_torch():
    check = "import sys, ddpm_service.gateway.lifecycle; assert not {'torch', 'diffusers', 'cv2'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_off_loopback_it_wants_tokens_or_an_explicit_wish():
    assert "needs API tokens" in refused("--host", "0.0.0.0")


def test_a_useless_file_of_tokens_is_named(tmp_path):
    assert "none.txt cannot be read" in refused("--tokens", str(tmp_path / "none.txt"))


def test_a_setting_that_is_not_allowed_is_named(monkeypatch):
    monkeypatch.setenv("DDPM_MAX_OPEN", "many")
    assert "DDPM_MAX_OPEN=many" in refused()


@pytest.mark.parametrize("option", ["--port", "--metrics-port", "--grpc-port"])
def test_a_taken_port_is_named(option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert port in refused(option, port)
