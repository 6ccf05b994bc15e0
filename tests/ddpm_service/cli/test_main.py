"""What holds for every command."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ddpm_service.cli import app
from ddpm_service.cli.extras import extra
from ddpm_service.cli.failure import told_in_a_line

ROOT = Path(__file__).parents[3]
PROGRAM = """
import time
from ddpm_service import __main__, cli

def app():
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        print("tidied up", flush=True)

cli.app = app
__main__.main()
"""
IMPATIENT = """
import sys
from ddpm_service.__main__ import main

class CtrlC:
    def find_spec(self, name, *_):
        if name == "ddpm_service.cli":
            raise KeyboardInterrupt

sys.meta_path.insert(0, CtrlC())
main()
"""


def test_sigterm_lets_a_command_tidy_up() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == "begun\n"
        command.send_signal(signal.SIGTERM)
        assert command.stdout.read() == "tidied up\n"
    assert command.returncode == 143


def test_ctrl_c_while_the_command_is_still_loading_says_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", IMPATIENT], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_a_package_that_is_missing_is_told_with_the_way_to_get_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, told_in_a_line("ddpm bench"), extra("dev"):
        importlib.import_module("no_such_package")

    assert ended.value.exit_code == 1
    assert capsys.readouterr().err == (
        "ddpm bench: no_such_package is not installed: pip install 'ddpm-lookalike[dev]'.\n"
    )


def test_make_run_prints_a_link_to_the_port_it_serves_at() -> None:
    command = ["make", "--dry-run", "run", "HOST=0.0.0.0", "PORT=9000"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ":9000/#token" in said


@pytest.mark.parametrize(("words", "said"), [(["--version"], "ddpm-lookalike "), (["sample", "-h"], "Usage: ")])
def test_version_and_short_help(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert done.stdout.lstrip().startswith(said)


def test_a_number_outside_its_limits_is_told_with_both() -> None:
    done = CliRunner().invoke(app, ["generate", "--size", "9", "--out", "x"])
    assert done.exit_code == 2
    assert "9 is not in 16..2048." in done.stderr


def test_models_outside_their_folder_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["models", "list"])
    assert done.exit_code == 1
    assert done.stderr.startswith("ddpm models list: there is no config.properties here: run this where it lies")
    assert "--config" in done.stderr


def test_a_reader_that_has_read_enough_is_told_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BrokenPipeError), told_in_a_line("ddpm sample"):
        raise BrokenPipeError(32, "Broken pipe")
    assert capsys.readouterr().err == ""


def test_what_the_system_refuses_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), told_in_a_line("ddpm generate"):
        Path("/proc/x").mkdir()
    assert capsys.readouterr().err == "ddpm generate: /proc/x: No such file or directory\n"
