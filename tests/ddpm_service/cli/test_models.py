"""`ddpm models …` beside a `ddpm serve`: what it waits for, and what it does after something went wrong."""

from __future__ import annotations

import importlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ddpm_service.cli import app
from ddpm_service.torchserve import applied, converge, leave
from ddpm_service.torchserve.desired import applying, load
from ddpm_service.torchserve.management import Worker
from ddpm_service.torchserve.sockets import Sockets
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
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where a service has its sockets
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
    assert "a 1.1: removed" in registered.stderr.splitlines()
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

    assert unloaded.exit_code == 0, unloaded.stderr
    assert "a 1.1: unloaded" in unloaded.stderr.splitlines()
    assert torchserve.versions["1.1"].workers == ()


@contextmanager
def service(folder: Path, when_changed: Callable[[], None], vouched: Path | None = None) -> Iterator[None]:
    """Have a `ddpm serve` run that has applied models.yaml, and does something when that changes."""
    sockets, models = Sockets.of(folder / "config.properties"), folder / "models.yaml"
    held = sockets.claim()
    before = models.read_bytes()
    applied.tell(sockets, models, before, {}, vouched)
    over = threading.Event()

    def look() -> None:
        while models.read_bytes() == before and not over.wait(0.01):
            pass
        when_changed()

    looking = threading.Thread(target=look)
    looking.start()
    yield
    over.set()
    looking.join()
    os.close(held)


@pytest.fixture
def register(torchserve: Memory, tmp_path: Path) -> Callable[[], Result]:
    write_archive(tmp_path / "model_store", "1.2")
    return lambda: ddpm_models(tmp_path, "register", "a_1.2.mar")


@pytest.fixture
def apply(tmp_path: Path) -> Callable[..., None]:
    """Tell what `ddpm serve` tells when it has applied models.yaml, all but what has failed."""
    sockets, models = Sockets.of(tmp_path / "config.properties"), tmp_path / "models.yaml"
    return lambda failed=None: applied.tell(sockets, models, models.read_bytes(), failed or {})


def test_a_version_is_registered_when_the_service_answers_by_it(
    register: Callable[[], Result], apply: Callable[..., None], tmp_path: Path
) -> None:
    done: list[str] = []
    with service(tmp_path, lambda: (done.append("applied"), apply())):
        registered = register()
        assert done == ["applied"]

    assert registered.exit_code == 0, registered.stderr


def test_what_the_service_fails_to_load_is_told(
    register: Callable[[], Result], apply: Callable[..., None], tmp_path: Path
) -> None:
    with service(tmp_path, lambda: apply({("a", "1.2"): "broken weights"})):
        registered = register()

    assert registered.exit_code == 1
    assert "a 1.2: broken weights" in registered.stderr
    assert "has it all the same" in registered.stderr


def test_what_the_services_checksums_do_not_name_is_not_loaded(
    register: Callable[[], Result], torchserve: Memory, tmp_path: Path
) -> None:
    listed = tmp_path / "models.sha256"
    listed.touch()
    with service(tmp_path, lambda: None, vouched=listed):
        registered = register()

    assert registered.exit_code == 1
    assert "a_1.2.mar has no line in models.sha256" in registered.stderr
    assert "1.2" not in torchserve.versions


def test_what_else_fails_in_the_service_is_not_this_commands(
    register: Callable[[], Result], apply: Callable[..., None], tmp_path: Path
) -> None:
    with service(tmp_path, lambda: apply({("a", "1.0"): "broken before", ("b", "1.0"): "somebody else's"})):
        assert register().exit_code == 0


def test_a_service_that_does_not_apply_it_is_not_waited_for_for_ever(
    register: Callable[[], Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applied, "_LONGEST_SECONDS", 0)
    with service(tmp_path, lambda: None):
        registered = register()

    assert registered.exit_code == 1
    waiting, refused = registered.stderr.splitlines()[-2:]
    assert waiting.startswith("waiting until the service has applied")
    assert "but the service has not applied it" in refused


def test_where_no_service_applies_this_file_that_is_told(register: Callable[[], Result], tmp_path: Path) -> None:
    another = tmp_path / "another.yaml"
    another.write_bytes((tmp_path / "models.yaml").read_bytes())
    sockets = Sockets.of(tmp_path / "config.properties")
    with service(tmp_path, lambda: applied.tell(sockets, another, another.read_bytes(), {})):
        registered = register()

    assert registered.exit_code == 0, registered.stderr
    assert registered.stderr.splitlines()[-1].endswith("no `ddpm serve` that runs here applies it")
