"""What `ddpm serve` keeps alive: TorchServe at the state of models.yaml, until it is told to stop."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from ddpm_service.errors import ServiceError
from ddpm_service.torchserve import applied, desired
from ddpm_service.torchserve.answers import Answers
from ddpm_service.torchserve.board import Board, State
from ddpm_service.torchserve.converge import Converger, probe
from ddpm_service.torchserve.management import Management, ManagementError, ServedVersion
from ddpm_service.torchserve.pulse import Key, Pulse
from ddpm_service.torchserve.server import TorchServe
from ddpm_service.torchserve.sockets import Sockets

_WATCH_SECONDS = 1.0
_LONGEST_PAUSE = 30.0
# TorchServe is started again when for so long neither its management nor any version has answered.
_DEAF_SECONDS = 30.0
# The process ends when so many restarts in a row have failed.
_RESTARTS = 5

log = logging.getLogger("ddpm")


class _UnderWayError(Exception):
    """Somebody else is changing what is served, and knows what he does."""


class Supervisor:
    """The owner of one TorchServe: starts it, applies models.yaml also when that changes, restarts it, ends with it.

    Args:
        config: the `config.properties`.
        models: the `models.yaml`.
        settings: lines that replace those of `config`.
        board: where the state of every version is kept.
        drain: waits until no request runs on (name, version), whose streams are about to be cut.
        pulse: what those who ask the versions tell of their signs of life.
        vouched: a file of checksums; no other archive is loaded.
    """

    def __init__(
        self,
        config: Path,
        models: Path,
        settings: Mapping[str, str] | None = None,
        *,
        board: Board,
        drain: Callable[[str, str], None],
        pulse: Pulse,
        vouched: Path | None = None,
    ) -> None:
        self._models = models
        self._vouched = vouched
        # models.yaml decides what is loaded.
        self._sockets = Sockets.of(config)
        self.server = TorchServe(config, {**(settings or {}), "load_models": ""}, sockets=self._sockets)
        self._management = Management(self.server.management_url)
        self._board = board
        self._converger = Converger(
            self._management,
            self.server.inference_url,
            self.server.model_store,
            reason=self.server.reason,
            say=log.info,
            board=board,
            drain=drain,
            vouched=vouched,
        )
        self._seen = b""
        self._wanted = desired.Desired()
        self._answers = Answers(board, pulse, partial(probe, self.server.inference_url))
        self._unready_since: dict[Key, float] = {}
        self._in_vain: set[Key] = set()
        self._deaf_since: float | None = None
        self._given_up: dict[Key, str] = {}
        self._troubles: set[str] = set()
        self._stop = threading.Event()

    def run(self) -> None:
        """Serve until `stop` is called. Every process is gone when this returns or raises.

        Raises:
            ServiceError: TorchServe or a default version cannot be started, or has failed for good.
        """
        try:
            self._seen = desired.read(self._models)
            self._wanted = desired.parse(self._seen, self._models)
            with desired.applying(self._models):
                self.server.start()
                self._apply(starting=True)
                self._tell()
                while not self._stop.wait(_WATCH_SECONDS):
                    self._watch()
        except ServiceError:
            # When the service stops, calls that are under way fail in many ways.
            if not self._stop.is_set():
                raise
        finally:
            self._lose("the service stops")
            self.server.stop()

    def stop(self) -> None:
        """Have `run` return soon, from another thread; running streams are cut."""
        self._stop.set()
        self.server.stop()

    def _apply(self, *, starting: bool) -> None:
        report = self._converger.apply(self._wanted)
        defaults = {(name, model.default) for name, model in self._wanted.models.items()}
        if starting and defaults and defaults <= report.failed.keys():
            name, version = next(iter(defaults))
            raise ServiceError(f"nothing can be served: {name} {version}: {report.failed[name, version]}")
        for (name, version), why in report.failed.items():
            log.error("%s %s failed: %s", name, version, why)
        self._given_up = report.failed
        self._board.started()
        if not defaults & report.failed.keys():
            models = ", ".join(sorted(self._wanted.models)) or "no models"
            log.info("ready: %s", models)

    def _watch(self) -> None:
        if not self.server.running():
            self._restart()
            return
        troubles = set()
        for look in (self._management.ping, self._reread, self._keep, self._watch_workers):
            try:
                look()
            except (desired.DesiredError, ManagementError) as error:
                troubles.add(str(error))
                if isinstance(error, ManagementError) and error.status is None:
                    self._is_deaf()
                    break
        else:
            self._deaf_since = None
        # Each trouble is told once while it lasts. If TorchServe died between two looks, the next look tells it.
        if self.server.running():
            for trouble in troubles - self._troubles:
                log.error("%s", trouble)
        self._troubles = troubles

    def _is_deaf(self) -> None:
        """TorchServe's management says nothing: it loads a version for somebody who waits for that, or it is stuck.

        Its versions tell which: where none answers, and no command has it load one, it is started again.
        """
        ready = [
            (name, version)
            for name, model in self._board.models().items()
            for version, standing in model.versions.items()
            if standing.state is State.READY
        ]
        answering = [key for key in ready if self._answers.hear(key)]
        now = time.monotonic()
        if answering or desired.is_changing(self.server.model_store):
            self._deaf_since = None
        elif self._deaf_since is None:
            self._deaf_since = now
        elif now - self._deaf_since > _DEAF_SECONDS and self.server.running():
            log.error("TorchServe does not answer and is stopped")
            self.server.stop()

    def _restart(self) -> None:
        self._deaf_since = None
        self._in_vain.clear()
        self._unready_since.clear()
        self._lose("TorchServe has ended and is started again")
        for attempt in range(_RESTARTS):
            pause = min(2.0**attempt, _LONGEST_PAUSE)
            log.error("TorchServe has ended; starting it again in %.0f s", pause)
            self.server.stop()
            if self._stop.wait(pause):
                return
            try:
                self.server.start()
                self._apply(starting=True)
            except ServiceError as error:
                log.error("%s", error)
            else:
                self._tell()
                return
        raise ServiceError(f"TorchServe could not be brought back in {_RESTARTS} attempts")

    def _lose(self, why: str) -> None:
        """Nothing is served now; what is not wanted will not come back."""
        for name, model in self._board.models().items():
            wanted = self._wanted.models.get(name)
            for version in model.versions:
                if wanted is None or version not in wanted.versions:
                    self._board.remove(name, version)
                else:
                    self._board.move(name, version, State.LOADING, why)
                self._answers.forget((name, version))

    def _reread(self) -> None:
        """Apply models.yaml when it has changed, until that is done; a wrong one changes nothing."""
        text = desired.read(self._models)
        if text == self._seen:
            return
        wanted = desired.parse(text, self._models)
        with desired.changing(self.server.model_store, self._later, shared=True):
            if wanted != self._wanted:
                log.info("%s has changed", self._models)
            # Until all of it is applied, the state is neither that of this file nor that of the former one.
            self._seen, self._wanted = b"", wanted
            self._apply(starting=False)
        self._seen = text
        self._tell()

    def _tell(self) -> None:
        """Tell the commands that wait for it that what was seen last is applied."""
        applied.tell(self._sockets, self._models, self._seen, self._given_up, self._vouched)

    def _keep(self) -> None:
        """Undo what somebody did at TorchServe's own ports: models.yaml says what is served, once it is applied."""
        if not self._seen:
            return
        deviations = self._converger.deviations(self._wanted)
        found = {key: deviation for key, deviation in deviations.items() if key not in self._given_up}
        if not found:
            return
        with suppress(_UnderWayError), desired.changing(self.server.model_store, self._under_way, shared=True):
            for key, (how, lost) in found.items():
                log.error("%s %s: %s; %s is applied again", *key, how, self._models)
                if lost:
                    self._answers.forget(key)
                    self._board.move(*key, State.LOADING, how)
            self._apply(starting=False)

    def _under_way(self, _folder: int) -> None:
        raise _UnderWayError

    def _later(self, _folder: int) -> None:
        raise desired.DesiredError(f"{self._models} has changed; it is applied after the change that is under way")

    def _watch_workers(self) -> None:
        for name, model in self._wanted.models.items():
            served = {each.version: each for each in self._management.describe(name)}
            for version, wish in model.versions.items():
                if wish.workers and (name, version) not in self._given_up and version in served:
                    self._watch_worker(served[version], is_default=version == model.default)

    def _watch_worker(self, served: ServedVersion, *, is_default: bool) -> None:
        """Tell when a worker dies and returns; TorchServe restarts it, until it gives up."""
        key = (served.name, served.version)
        label = f"{served.name} {served.version}"
        now = time.monotonic()
        if served.ready:
            if key in self._unready_since:
                self._returned(key, label)
            elif self._answers.look(key):
                log.error("%s: its worker is killed, so that TorchServe starts another", label)
                for worker in served.workers:
                    with suppress(ProcessLookupError):
                        os.kill(worker.pid, signal.SIGKILL)
            return
        if key not in self._unready_since:
            log.error("%s: its worker has died; TorchServe starts it again", label)
            self._answers.forget(key)
            self._board.move(*key, State.LOADING, "its worker has died and is started again")
        since = self._unready_since.setdefault(key, now)
        # Attempts to load may last longer than TorchServe's patience. After the last one no process is left.
        alive = any(psutil.pid_exists(worker.pid) for worker in served.workers if worker.pid > 0)
        if alive or now - since < 2 * served.retry_seconds:
            return
        why = f"its worker has failed for good: {self.server.reason(*key)}"
        self._board.move(*key, State.FAILED, why)
        if is_default:
            raise ServiceError(f"{label}: {why}")
        self._given_up[key] = why
        log.error("%s: %s", label, why)

    def _returned(self, key: tuple[str, str], label: str) -> None:
        """A worker is back; its version is ready again when it has made an image. A second one in vain: TorchServe."""
        try:
            probe(self.server.inference_url, *key, self._answers.patience(key))
        except ServiceError as error:
            log.error("%s: its worker is back, but %s", label, error)
            if key in self._in_vain:
                log.error("TorchServe is stopped: a new worker of %s did not help", label)
                self.server.stop()
            self._in_vain.add(key)
            return
        self._in_vain.discard(key)
        del self._unready_since[key]
        self._board.move(*key, State.READY)
        log.info("%s: its worker is back", label)
