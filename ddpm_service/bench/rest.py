"""The served model beside the same plan in this process, and the memory of its worker."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ddpm_service import archive
from ddpm_service.client import Client
from ddpm_service.torchserve.converge import Converger
from ddpm_service.torchserve.desired import Desired
from ddpm_service.torchserve.management import Management
from ddpm_service.torchserve.server import Ports, TorchServe


@dataclass(frozen=True)
class Served:
    """A bundle that is being served: its client, and the worker that serves it."""

    name: str
    client: Client
    worker: psutil.Process

    def generate(self, image: bytes, **fields: Any) -> None:
        """Make faces and throw them away."""
        self.client.generate(image, model=self.name, **fields)


@contextmanager
def serving(bundle: Path, config: Path) -> Iterator[Served]:
    """Serve one bundle on free ports of loopback, by a TorchServe of its own."""
    with tempfile.TemporaryDirectory(prefix="ddpm-bench-") as store:
        packed = archive.pack(bundle, Path(store))
        manifest = archive.read_manifest(packed)
        name, version = manifest["name"], manifest["version"]
        settings = Ports.free().settings() | {"model_store": store, "load_models": ""}
        with TorchServe(config, settings, echo=None) as server:
            management = Management(server.management_url)
            wanted = Desired().with_version(name, version, packed.name, default=True)
            report = Converger(management, server.inference_url, Path(store)).apply(wanted)
            if report.failed:
                raise RuntimeError("; ".join(report.failed.values()))
            (served,) = management.describe(name)
            with Client(server.inference_url) as client:
                yield Served(name, client, psutil.Process(served.workers[0].pid))


@dataclass(frozen=True)
class Memory:
    """A worker's resident memory in bytes, before and after so many requests."""

    before: int
    after: int
    requests: int


def memory(served: Served, image: bytes, on_request: Callable[[], object], *, requests: int = 200) -> Memory:
    """Make `requests` small requests; the first twenty are not counted, for caches fill then."""
    before = 0
    for i in range(20 + requests):
        if i == 20:
            before = served.worker.memory_info().rss
        served.generate(image, num_images=1 + i % 3, num_inference_steps=2 + i % 4, seed=i)
        on_request()
    return Memory(before, served.worker.memory_info().rss, requests)
