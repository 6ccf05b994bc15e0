"""Real TorchServes for the tests: free ports, a temporary folder each, and nothing left behind."""

from __future__ import annotations

import io
import json
import re
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import skimage.data
from PIL import Image

from ddpm_api import Event, parse_event
from ddpm_service.archive import pack
from ddpm_service.torchserve.management import Management
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
    settings = Ports.free().settings() | {"model_store": str(store), "load_models": ""}
    with TorchServe(ROOT / "config.properties", settings) as server:
        yield server


class Stream(threading.Thread):
    """A client that reads the events of its request as they come, until it is told to leave."""

    def __init__(self, url: str, document: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        headers = {"Accept": "application/x-ndjson"}
        self.answer = requests.post(url, json=document, headers=headers, stream=True, timeout=60)
        assert self.answer.ok, self.answer.text
        self.events: list[Event] = []
        self.news = threading.Condition()
        self.start()

    def run(self) -> None:
        with suppress(requests.RequestException, AttributeError):  # cut; or closed by `leave`
            for line in self.answer.iter_lines(chunk_size=1):
                if line:
                    with self.news:
                        self.events.append(parse_event(line))
                        self.news.notify_all()
        with self.news:
            self.news.notify_all()

    def wait_for(self, name: str) -> None:
        with self.news:
            assert self.news.wait_for(lambda: any(event.event == name for event in self.events), 60), self.names

    @property
    def names(self) -> list[str]:
        return [event.event for event in self.events]

    def leave(self) -> None:
        sock = self.answer.raw._connection.sock
        sock.shutdown(socket.SHUT_RDWR)
        self.join(60)
        self.answer.close()


class Served:
    """A running TorchServe with models of ours, and all that it printed."""

    def __init__(self, server: TorchServe, log: io.StringIO, face_model: str) -> None:
        self.server, self.log, self.face_model = server, log, face_model
        self.management = Management(server.management_url)

    def url(self, model: str) -> str:
        return f"{self.server.inference_url}/predictions/{model}"

    def post(self, model: str, document: dict[str, Any] | None = None, **more: Any) -> requests.Response:
        if document is not None:
            more["json"] = document
        return requests.post(self.url(model), timeout=90, **more)

    def stream(self, model: str, **document: Any) -> Stream:
        return Stream(self.url(model), document)

    def worker(self, model: str, version: str) -> psutil.Process:
        served = next(each for each in self.management.describe(model) if each.version == version)
        return psutil.Process(served.workers[0].pid)

    def figure(self, name: str, model: str) -> float:
        """A figure of a model at the metrics port, all labels summed up; 0 while there is none."""
        text = requests.get(f"{self.server.metrics_url}/metrics", timeout=30).text
        values = re.findall(rf'^{name}{{[^}}]*ModelName="{model}"[^}}]*}} (\S+)$', text, re.MULTILINE)
        return sum(map(float, values))


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, write_toy_bundle: Any) -> Iterator[Served]:
    """The embedded model; and the toy, whose calls take 30 ms, in two versions."""
    store, bundles = tmp_path_factory.mktemp("archives"), tmp_path_factory.mktemp("bundles")
    embedded = max((ROOT / "models" / "faces-64").iterdir())
    toys = [write_toy_bundle(bundles / version, version=version, seconds=0.03) for version in ("1.0", "2.0")]
    archives = [pack(bundle, store) for bundle in (embedded, *toys)]
    log = io.StringIO()
    settings = Ports.free().settings() | {"model_store": str(store), "load_models": ""}
    server = TorchServe(ROOT / "config.properties", settings, echo=log)
    with server:
        served = Served(server, log, "faces-64")
        for archive in archives:
            served.management.register(archive.name)
        yield served


@pytest.fixture(scope="session")
def selfie() -> bytes:
    """A photograph of a face, in the public domain, as a PNG of some 400 kB."""
    file = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(file, "PNG")
    return file.getvalue()
