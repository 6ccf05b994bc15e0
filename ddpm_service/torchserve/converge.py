"""Bring TorchServe to the state that models.yaml wants: add, see an image, make default, remove."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import requests

from ddpm_service.archive import ArchiveError, read_manifest, read_offers
from ddpm_service.errors import ServiceError
from ddpm_service.torchserve import checksums
from ddpm_service.torchserve.api import Api
from ddpm_service.torchserve.board import Board, State, VersionState
from ddpm_service.torchserve.desired import Desired, DesiredModel, DesiredVersion
from ddpm_service.torchserve.management import Management, ManagementError, ServedVersion

# A worker that is starting may take TorchServe's startupTimeout.
_LOAD_SECONDS = 660.0
_CONFLICT = 409


@dataclass
class Report:
    """What was done, in order, and what failed: (name, version) → why."""

    done: list[str] = field(default_factory=list)
    failed: dict[tuple[str, str], str] = field(default_factory=dict)


class Deviation(NamedTuple):
    """How a version is served otherwise than wanted, and whether it answers nobody by that."""

    how: str
    lost: bool


class Converger:
    """The way to a desired state; going it again does nothing.

    A version that fails is unregistered, and disturbs no other: the default stays where it was, and what would have
    been removed in its favour stays too.

    Args:
        management: the TorchServe.
        inference_url: where it answers predictions; each new version must make an image there.
        model_store: the folder of its archives.
        reason: tells why the worker of (name, version) failed, when TorchServe does not.
        say: told every step as it is taken.
        board: where the state of every version is kept.
        drain: waits until no request runs on (name, version), which is about to go; it may find it gone.
        vouched: a file of checksums; no other archive is loaded.
    """

    def __init__(
        self,
        management: Management,
        inference_url: str,
        model_store: Path,
        *,
        reason: Callable[[str, str], str] | None = None,
        say: Callable[[str], None] = lambda _: None,
        board: Board | None = None,
        drain: Callable[[str, str], None] = lambda _name, _version: None,
        vouched: Path | None = None,
    ) -> None:
        self._management = management
        self._inference_url = inference_url
        self._model_store = model_store
        self._reason = reason
        self._say = say
        self._board = board or Board()
        self._drain = drain
        self._vouched = vouched

    def apply(self, desired: Desired) -> Report:
        """Converge to `desired`.

        Raises:
            ManagementError: TorchServe cannot be reached any more.
        """
        report = Report()
        for name, model in desired.models.items():
            self._apply_model(name, model, report)
        for name in self._management.models():
            if name not in desired.models:
                self._remove(name, self._management.describe(name), report)
        self._forget(desired)
        return report

    def deviations(self, desired: Desired) -> dict[tuple[str, str], Deviation]:
        """Where what TorchServe serves is not what is wanted, by name and version. A dead worker is none.

        Raises:
            ManagementError: TorchServe cannot be asked.
        """
        found = {}
        for name in desired.models.keys() | set(self._management.models()):
            served = {each.version: each for each in self._management.describe(name)}
            model = desired.models.get(name)
            # What a default that failed was to replace stays.
            if model is None or model.default in served:
                for version in served.keys() - (model.versions if model else {}).keys():
                    found[name, version] = Deviation("it is not wanted", lost=False)
            for version, wish in model.versions.items() if model else ():
                if version not in served:
                    found[name, version] = Deviation("it is not registered any more", lost=True)
                elif (workers := len(served[version].workers)) != wish.workers:
                    how = f"it has {workers} {'worker' if workers == 1 else 'workers'} instead of {wish.workers}"
                    found[name, version] = Deviation(how, lost=not workers)
            default = self._management.default(name)
            if model and default in served and default != model.default:
                how = f"{default} answers where no version is named"
                found.setdefault((name, model.default), Deviation(how, lost=False))
        return found

    def _apply_model(self, name: str, model: DesiredModel, report: Report) -> None:
        # The default first: TorchServe lets the first that it gets answer for the model.
        ordered = sorted(model.versions.items(), key=lambda item: item[0] != model.default)
        for version, wish in ordered:
            self._show(name, version, wish)
        for version, wish in ordered:
            try:
                self._ensure(name, version, wish, report)
            except ServiceError as error:
                if isinstance(error, ManagementError) and error.status is None:
                    raise
                report.failed[name, version] = str(error)
                self._board.move(name, version, State.FAILED, str(error))
            else:
                self._board.move(name, version, State.READY if wish.workers else State.UNLOADED)
        if (name, model.default) in report.failed:
            return
        if self._management.default(name) != model.default:
            self._management.set_default(name, model.default)
            self._note(report, f"{name}: {model.default} is the default now")
        self._board.answer(name, model.default)
        now = self._management.describe(name)
        for served in now:
            for worker in served.workers:
                self._board.runs_on(name, served.version, "cuda" if worker.gpu else "cpu")
        unwanted = [served for served in now if served.version not in model.versions]
        self._remove(name, unwanted, report)

    def _forget(self, desired: Desired) -> None:
        """Take from the board what is neither wanted nor served: a version that failed to load and was given up."""
        for name, model in self._board.models().items():
            wanted = desired.models[name].versions if name in desired.models else {}
            served = {each.version for each in self._management.describe(name)}
            for version in model.versions.keys() - wanted.keys() - served:
                self._board.remove(name, version)

    def _show(self, name: str, version: str, wish: DesiredVersion) -> None:
        """Put a version that is not known yet on the board, with what its archive tells once that is there."""
        model = self._board.models().get(name)
        shown = model.versions.get(version) if model else None
        if shown is not None and shown.archive == wish.archive and shown.manifest:
            return
        file = self._model_store / wish.archive
        told: dict[str, Any] = {}  # told when it is registered
        with suppress(ArchiveError, OSError):
            told = {"manifest": read_manifest(file), "offers": read_offers(file), "size": file.stat().st_size}
        self._board.put(name, version, VersionState(wish.archive, State.LOADING, **told))

    def _ensure(self, name: str, version: str, wish: DesiredVersion, report: Report) -> None:
        """Have the version registered with its archive and its one worker or none; a new one must make an image."""
        served = self._served(name, version)
        if served is not None and served.archive != wish.archive:
            raise ServiceError(f"it is served from {served.archive}; give {wish.archive} a version of its own")
        if served is None:
            self._check_archive(name, version, wish.archive)
            self._say(f"{name} {version}: loading {wish.archive}")
            self._register(name, version, wish.archive)
            self._note(report, f"{name} {version}: registered {wish.archive}")
        elif len(served.workers) == wish.workers and (served.ready or not wish.workers):
            return
        if wish.workers == 0:
            self._let_end(name, version)
            self._management.scale(name, version, 0)
            self._note(report, f"{name} {version}: unloaded")
            return
        if served is not None and len(served.workers) != 1:
            self._loading(name, version, lambda: self._management.scale(name, version, 1))
            self._note(report, f"{name} {version}: has one worker")
            if served.ready:
                return
        self._wait_until_ready(name, version)
        try:
            probe(self._inference_url, name, version)
        except ServiceError:
            self._management.unregister(name, version)
            raise
        self._note(report, f"{name} {version}: ready, it has made an image")

    def _register(self, name: str, version: str, archive: str) -> None:
        try:
            self._loading(name, version, lambda: self._management.register(archive))
        except ServiceError:
            # Most of the time TorchServe forgets a version that failed to load, but not always.
            if self._served(name, version) is not None:
                self._management.unregister(name, version)
            raise

    def _loading(self, name: str, version: str, load: Callable[[], None]) -> None:
        """Do what starts a worker; a failure is told in the worker's words."""
        try:
            load()
        except ManagementError as error:
            if error.status == _CONFLICT:
                return  # somebody else is registering it; it is waited for next
            if error.status is None:
                raise
            why = self._reason(name, version) if self._reason else f"{error} (TorchServe's output says why)"
            raise ServiceError(why) from error

    def _check_archive(self, name: str, version: str, archive: str) -> None:
        """Refuse other bytes; TorchServe takes name and version from the archive, so they must be the ones wanted."""
        manifest = read_manifest(self._model_store / archive)
        found = (manifest["name"], manifest["version"])
        if found != (name, version):
            raise ArchiveError(f"{archive} holds {found[0]} {found[1]}, not {name} {version}")
        if self._vouched is not None:
            checksums.check(self._model_store / archive, self._vouched)

    def _wait_until_ready(self, name: str, version: str) -> None:
        deadline = time.monotonic() + _LOAD_SECONDS
        while time.monotonic() < deadline:
            served = self._served(name, version)
            if served is None:
                break
            if served.ready:
                return
            time.sleep(0.5)
        raise ServiceError(self._reason(name, version) if self._reason else "its worker did not become ready")

    def _remove(self, name: str, unwanted: list[ServedVersion], report: Report) -> None:
        default = self._management.default(name) if unwanted else None
        for served in sorted(unwanted, key=lambda served: served.version == default):
            self._unregister(served, report)

    def _unregister(self, served: ServedVersion, report: Report) -> None:
        self._let_end(served.name, served.version)
        if self._served(served.name, served.version) is not None:
            self._management.unregister(served.name, served.version)
        self._board.remove(served.name, served.version)
        self._note(report, f"{served.name} {served.version}: removed")

    def _let_end(self, name: str, version: str) -> None:
        """What takes a worker away cuts its streams, so they end first."""
        self._board.move(name, version, State.LEAVING)
        self._say(f"{name} {version}: waiting for its running requests")
        self._drain(name, version)

    def _served(self, name: str, version: str) -> ServedVersion | None:
        return next((served for served in self._management.describe(name) if served.version == version), None)

    def _note(self, report: Report, line: str) -> None:
        report.done.append(line)
        self._say(line)


def probe(inference_url: str, name: str, version: str, timeout: float = 120.0) -> None:
    """Have a version make one image in one step: READY workers alone prove nothing. To be full is to answer too.

    Raises:
        ServiceError: it did not, with its own words.
    """
    try:
        answer = Api(inference_url).request(
            "POST",
            f"/predictions/{name}/{version}",
            json={"num_inference_steps": 1, "seed": 0},
            headers={"Accept": "application/json"},
            timeout=(5, timeout),
        )
        images = answer.json().get("images") if answer.ok else None
    except (requests.RequestException, AttributeError) as error:
        raise ServiceError(f"it made no image: {type(error).__name__}") from error
    if not images and '"code":"busy"' not in answer.text:
        raise ServiceError(f"it made no image: HTTP {answer.status_code}: {answer.text[:300]}")
