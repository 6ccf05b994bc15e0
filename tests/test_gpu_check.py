"""The check that is run where a GPU is at hand: each step stands alone, and what was measured is kept at once."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "gpu_check.py"


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The script's names; its steps can be exchanged."""
    monkeypatch.setattr("sys.path", list(sys.path))
    return runpy.run_path(str(SCRIPT))


def test_a_step_that_fails_is_told_and_the_others_go_on(check, monkeypatch, tmp_path, capsys) -> None:
    out = tmp_path / "check.json"
    kept = []

    def measured(_: object) -> dict[str, Any]:
        kept.append(json.loads(out.read_text()) if out.exists() else {})
        return {"figure": 1}

    def failed(_: object) -> dict[str, Any]:
        raise RuntimeError("no such kernel")

    main = check["main"]
    main.__globals__["STEPS"] = {"first": measured, "second": failed, "third": measured}
    monkeypatch.setattr("sys.argv", ["gpu_check.py", "--tiny", "--out", str(out)])
    assert main() == 1
    results = json.loads(out.read_text())
    assert [sorted(results[name].keys() - {"seconds"}) for name in results] == [
        ["figure"],
        ["error", "where"],
        ["figure"],
    ]
    assert results["second"]["error"] == "RuntimeError: no such kernel"
    assert [list(each) for each in kept] == [[], ["first", "second"]]
    assert "second: ERROR RuntimeError: no such kernel" in capsys.readouterr().out


def test_no_step_is_begun_when_the_time_is_over(check, monkeypatch, tmp_path) -> None:
    main = check["main"]
    main.__globals__["STEPS"] = {"first": lambda _: {}}
    monkeypatch.setattr("sys.argv", ["gpu_check.py", "--minutes", "0", "--out", str(tmp_path / "check.json")])
    assert main() == 0
    assert json.loads((tmp_path / "check.json").read_text()) == {"first": {"left_out": "no time was left"}}


def test_it_works_here_in_tiny_sizes(tmp_path) -> None:
    out = tmp_path / "check.json"
    command = [sys.executable, str(SCRIPT), "--tiny", "--minutes", "30", "--out", str(out)]
    command += [word for step in ("versions", "memory", "training") for word in ("--step", step)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout
    found = json.loads(out.read_text(), object_hook=lambda fields: SimpleNamespace(**fields))
    assert (found.versions.torch[0], len(found.versions.image_sha256)) == ("2", 64)
    assert (found.memory.images, found.memory.failed, found.memory.rows_after) == (4, 0, 2)
    assert found.training.eager.steps == 6
