"""Real TorchServes for the tests: free ports, a temporary folder each, and nothing left behind."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ddpm_service.torchserve.server import Ports, TorchServe

ROOT = Path(__file__).parents[2]

# Makes "images" at once, so that whatever only concerns TorchServe needs no network.
TOY_HANDLER = """
def handle(data, ctx):
    if data is None:
        return None
    for row in range(len(data)):
        ctx.set_response_content_type(row, "application/json")
    ctx.stopping_criteria = [lambda _: None] * len(data)
    return ['{"images": ["' + LABEL + '"]}'] * len(data)
"""

MakeToy = Callable[..., str]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def make_toy(store: Path) -> MakeToy:
    """Write an archive of a handler that needs no network into the store; return its file name."""

    def make(name: str, version: str, *, handler: str = TOY_HANDLER, label: str = "") -> str:
        file = f"{name}_{version}.mar"
        model = {"modelName": name, "modelVersion": version, "handler": "toy.py", "configFile": "model-config.yaml"}
        with zipfile.ZipFile(store / file, "w") as archive:
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": model}))
            archive.writestr("toy.py", f"LABEL = {label or version!r}\n{handler}")
            archive.write(ROOT / "handlers" / "model-config.yaml", "model-config.yaml")
            archive.writestr("bundle/bundle.json", json.dumps({"name": name, "version": version}))
        return file

    return make


@pytest.fixture(scope="session")
def torchserve(store: Path) -> Iterator[TorchServe]:
    """A running TorchServe without models, with the repository's configuration."""
    settings = Ports.free().settings() | {"model_store": str(store), "load_models": "none"}
    with TorchServe(ROOT / "config.properties", settings) as server:
        yield server
