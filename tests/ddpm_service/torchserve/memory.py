"""TorchServe's management without TorchServe: what is registered is in a dictionary."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

from ddpm_service.torchserve.management import Management, ManagementError, ServedVersion, Worker

READY, DEAD = Worker("READY", 0, 0), Worker("UNLOADING", 0, 0)


class Memory(Management):
    """Serves the model "a".

    Attributes:
        versions: what is registered.
        failures: what the next calls that change something fail with.
    """

    def __init__(self, *versions: str) -> None:
        super().__init__("http://127.0.0.1:9")
        self.versions: dict[str, ServedVersion] = {}
        self.failures: list[ManagementError] = []
        for version in versions:
            self.register(f"a_{version}.mar")
        self.answering = versions[0]

    def ping(self) -> None:
        pass

    def models(self) -> list[str]:
        return ["a"]

    def describe(self, name: str) -> list[ServedVersion]:
        return list(self.versions.values())

    def default(self, name: str) -> str | None:
        return self.answering

    def register(self, archive: str) -> None:
        version = archive.removeprefix("a_").removesuffix(".mar")
        self.versions[version] = ServedVersion("a", version, archive, (READY,), 60)

    def scale(self, name: str, version: str, workers: int) -> None:
        self.versions[version] = replace(self.versions[version], workers=(READY,) * workers)

    def set_default(self, name: str, version: str) -> None:
        if self.failures:
            raise self.failures.pop()
        self.answering = version

    def unregister(self, name: str, version: str) -> None:
        del self.versions[version]

    def kill(self, version: str) -> None:
        """Let the worker of a version die."""
        self.versions[version] = replace(self.versions[version], workers=(DEAD,))


def write_archive(store: Path, version: str) -> None:
    """Write an archive that tells what it holds, and holds nothing."""
    with zipfile.ZipFile(store / f"a_{version}.mar", "w") as archive:
        archive.writestr("bundle/bundle.json", json.dumps({"name": "a", "version": version}))
