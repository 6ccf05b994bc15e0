"""What is served now: written by the supervisor's thread, read by the front door."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Where a version stands."""

    LOADING = "loading"
    READY = "ready"
    SILENT = "silent"  # has a worker, which answers nobody
    FAILED = "failed"
    UNLOADED = "unloaded"
    LEAVING = "leaving"


@dataclass(frozen=True)
class VersionState:
    """One version: its archive, where it stands, and why it failed if it did.

    `manifest` is its `bundle.json`, empty when the archive cannot be read; `size` are the archive's bytes;
    `device` is what its worker runs on, `cuda` or `cpu`, None before the first one was seen; `offers` is what the
    archive tells beside its `bundle.json`.
    """

    archive: str
    state: State
    reason: str | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    size: int = 0
    device: str | None = None
    offers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelState:
    """One model: its versions, and the one that answers now when none is named."""

    name: str
    default: str
    versions: Mapping[str, VersionState]

    @property
    def ready(self) -> bool:
        """Whether the default version has made an image and takes requests."""
        return self.versions[self.default].state is State.READY


class Board:
    """The state of every version. Each look is one immutable picture; all methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: Mapping[str, ModelState] = {}
        self._started = False
        self._listeners: list[Callable[[], None]] = []

    def models(self) -> Mapping[str, ModelState]:
        """Every model that is served or wanted, by name."""
        return self._models

    @property
    def ready(self) -> bool:
        """Whether the wanted state was reached once and the default version of every model takes requests."""
        return self._started and all(model.ready for model in self._models.values())

    @property
    def loads(self) -> bool:
        """Whether a version of any model is being loaded."""
        return any(each.state is State.LOADING for model in self._models.values() for each in model.versions.values())

    def listen(self, listener: Callable[[], None]) -> None:
        """Have a function called after every change, in the thread that made it."""
        self._listeners.append(listener)

    def started(self) -> None:
        """Say that the wanted state has been applied for the first time."""
        self._started = True
        self._tell()

    def put(self, name: str, version: str, state: VersionState) -> None:
        """Add a version or replace its state; the first one of a model is its default."""
        with self._lock:
            model = self._models.get(name) or ModelState(name, version, {})
            self._keep(replace(model, versions={**model.versions, version: state}))
        self._tell()

    def move(self, name: str, version: str, state: State, reason: str | None = None) -> None:
        """Change where a version stands, if it is on the board."""
        model = self._models.get(name)
        if model is not None and version in model.versions:
            self.put(name, version, replace(model.versions[version], state=state, reason=reason))

    def runs_on(self, name: str, version: str, device: str) -> None:
        """Say what the worker of a version that is on the board runs on."""
        model = self._models.get(name)
        if model is not None and version in model.versions:
            self.put(name, version, replace(model.versions[version], device=device))

    def answer(self, name: str, version: str) -> None:
        """Let a version answer when none is named."""
        with self._lock:
            self._keep(replace(self._models[name], default=version))
        self._tell()

    def remove(self, name: str, version: str) -> None:
        """Take a version away; with its last one the model goes."""
        with self._lock:
            model = self._models.get(name)
            if model is None:
                return
            versions = {key: value for key, value in model.versions.items() if key != version}
            self._models = {key: value for key, value in self._models.items() if key != name}
            if versions:
                default = model.default if model.default in versions else next(iter(versions))
                self._keep(replace(model, default=default, versions=versions))
        self._tell()

    def _keep(self, model: ModelState) -> None:
        self._models = {**self._models, model.name: model}

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
