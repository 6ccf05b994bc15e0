"""`ddpm models …` beside a `ddpm serve`, after something went wrong."""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ddpm_service.cli import app
from ddpm_service.torchserve import converge, leave
from ddpm_service.torchserve.desired import applying, load
from ddpm_service.torchserve.management import Worker
from tests.ddpm_service.torchserve.memory import Memory, write_archive


@pytest.fixture
def torchserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Memory:
    """Version 1.0 as models.yaml has it, and 1.1, which an interrupted command has left behind."""
    memory = Memory("1.0", "1.1")
    for module in (importlib.import_module("ddpm_service.cli.models"), leave):
        monkeypatch.setattr(module, "Management", lambda _: memory)
    monkeypatch.setattr(converge, "probe", lambda *_: None)
    monkeypatch.setattr(leave, "_running", lambda *_: 0)
    monkeypatch.setattr(leave, "_TOLD_SECONDS", 0)
    (tmp_path / "config.properties").touch()
    (tmp_path / "model_store").mkdir()
    (tmp_path / "models.yaml").write_text('models: {a: {default: "1.0", versions: {"1.0": a_1.0.mar}}}\n')
    return memory


def ddpm_models(folder: Path, *words: str) -> Result:
    places = ["--models", str(folder / "models.yaml"), "--config", str(folder / "config.properties")]
    with applying(folder / "models.yaml"):
        return CliRunner().invoke(app, ["models", words[0], *places, *words[1:]])


def test_what_an_interrupted_register_left_behind_is_no_business_of_the_service(
    torchserve: Memory, tmp_path: Path
) -> None:
    write_archive(tmp_path / "model_store", "1.2")

    registered = ddpm_models(tmp_path, "register", "a_1.2.mar")

    assert registered.exit_code == 0, registered.stderr
    assert registered.stderr.splitlines()[-1] == "a 1.1: removed"
    assert list(torchserve.versions) == list(load(tmp_path / "models.yaml").models["a"].versions) == ["1.0", "1.2"]


def test_what_is_served_gives_way_to_another_archive_only_when_told(
    torchserve: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leave, "_LONGEST_SECONDS", 0)
    here = Worker("READY", os.getpid(), 0)  # this process stands for the worker: its folder holds what was loaded
    torchserve.versions["1.0"] = replace(torchserve.versions["1.0"], workers=(here,))
    loaded = {"name": "a", "version": "1.0", "checksums": {"unet/config.json": "0"}}
    (tmp_path / "loaded" / "bundle").mkdir(parents=True)
    (tmp_path / "loaded" / "bundle" / "bundle.json").write_text(json.dumps(loaded))
    monkeypatch.chdir(tmp_path / "loaded")
    write_archive(tmp_path / "model_store", "1.0")

    refused = ddpm_models(tmp_path, "register", "a_1.0.mar")
    replaced = ddpm_models(tmp_path, "register", "a_1.0.mar", "--replace")

    assert refused.exit_code == 1
    assert "a 1.0 is served already, by what a_1.0.mar held before; --replace puts" in refused.stderr
    assert replaced.exit_code == 0, replaced.stderr
    assert "a 1.0: registered a_1.0.mar" in replaced.stderr
    assert load(tmp_path / "models.yaml").models["a"].default == "1.0"


def test_a_service_that_never_takes_a_version_away_is_not_waited_for_for_ever(
    torchserve: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leave, "_LONGEST_SECONDS", 0)
    (tmp_path / "models.yaml").write_text(
        'models: {a: {default: "1.0", versions: {"1.0": a_1.0.mar, "1.1": a_1.1.mar}}}\n'
    )

    unloaded = ddpm_models(tmp_path, "scale", "a", "1.1", "0")

    assert (unloaded.exit_code, unloaded.stderr.splitlines()[-1]) == (0, "a 1.1: unloaded")
    assert torchserve.versions["1.1"].workers == ()
