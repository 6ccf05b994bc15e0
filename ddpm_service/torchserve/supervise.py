"""What `ddpm serve` runs: TorchServe at the state of models.yaml, watched until it is told to stop."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Never

import psutil

from ddpm_service.errors import ServiceError
from ddpm_service.torchserve import desired
from ddpm_service.torchserve.converge import Converger
from ddpm_service.torchserve.management import Management, ManagementError, ServedVersion
from ddpm_service.torchserve.server import TorchServe

_WATCH_SECONDS = 1.0
_LONGEST_PAUSE = 30.0
# Restarts in a row without getting ready, after which the process ends and leaves it to who started it.
_RESTARTS = 5


class _Stop(BaseException):
    """SIGTERM or SIGINT: leave whatever is going on."""


class Supervisor:
    """Owns one TorchServe: starts it, applies models.yaml also when that changes, restarts it, ends with it.

    Args:
        config: the ``config.properties``.
        models: the ``models.yaml``.
        settings: lines that replace those of ``config``.
    """

    def __init__(self, config: Path, models: Path, settings: Mapping[str, str] | None = None) -> None:
        self._models = models
        # models.yaml decides what is loaded.
        self._server = TorchServe(config, {**(settings or {}), "load_models": "none"})
        self._management = Management(self._server.management_url)
        self._converger = Converger(
            self._management, self._server.inference_url, self._server.model_store, reason=self._server.reason, say=say
        )
        self._seen = ""
        self._wanted = desired.Desired()
        self._unready_since: dict[tuple[str, str], float] = {}
        self._given_up: set[tuple[str, str]] = set()

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, and return 0. Every process is gone when this returns or raises.

        Raises:
            ServiceError: TorchServe or a default version cannot be started, or has failed for good.
        """
        previous = {number: signal.signal(number, _raise_stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._start()
            while True:
                time.sleep(_WATCH_SECONDS)
                self._watch()
        except _Stop:
            say("stopping")
            return 0
        finally:
            self._server.stop()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _start(self) -> None:
        self._wanted, self._seen = desired.load(self._models), self._models.read_text()
        self._server.start()
        self._apply(starting=True)

    def _apply(self, *, starting: bool) -> None:
        report = self._converger.apply(self._wanted)
        defaults = {(name, model.default) for name, model in self._wanted.models.items()}
        if starting and defaults and defaults <= report.failed.keys():
            name, version = next(iter(defaults))
            raise ServiceError(f"nothing can be served: {name} {version}: {report.failed[name, version]}")
        for (name, version), why in report.failed.items():
            say(f"{name} {version} failed: {why}")
        self._given_up = set(report.failed)
        if not defaults & report.failed.keys():
            say(f"ready: {', '.join(sorted(self._wanted.models)) or 'no models'} at {self._server.inference_url}")

    def _watch(self) -> None:
        if not self._server.running():
            self._restart()
            return
        try:
            self._reread()
            self._watch_workers()
        except ManagementError as error:
            # It died between two looks, which the next one sees; a refusal is told.
            if error.status is not None:
                say(str(error))

    def _restart(self) -> None:
        for attempt in range(_RESTARTS):
            pause = min(2.0**attempt, _LONGEST_PAUSE)
            say(f"TorchServe has ended; starting it again in {pause:.0f} s")
            self._server.stop()
            time.sleep(pause)
            try:
                self._server.start()
                self._apply(starting=True)
            except ServiceError as error:
                say(str(error))
            else:
                return
        raise ServiceError(f"TorchServe could not be brought back in {_RESTARTS} attempts")

    def _reread(self) -> None:
        """Apply models.yaml when it has changed; a wrong one changes nothing."""
        try:
            text = self._models.read_text()
            if text == self._seen:
                return
            self._seen = text
            self._wanted = desired.load(self._models)
        except (OSError, ServiceError) as error:
            if not isinstance(error, OSError):
                say(f"{error}; nothing is changed")
            return
        say(f"{self._models} has changed")
        self._apply(starting=False)

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
            if self._unready_since.pop(key, None) is not None:
                say(f"{label}: its worker is back")
            return
        if key not in self._unready_since:
            say(f"{label}: its worker has died; TorchServe starts it again")
        since = self._unready_since.setdefault(key, now)
        # Its attempts to load last longer than its patience; after the last one no process is left.
        alive = any(psutil.pid_exists(worker.pid) for worker in served.workers if worker.pid > 0)
        if alive or now - since < 2 * served.retry_seconds:
            return
        if is_default:
            raise ServiceError(f"{label}: its worker has failed for good: {self._server.reason(*key)}")
        self._given_up.add(key)
        say(f"{label}: its worker has failed for good: {self._server.reason(*key)}")


def say(line: str) -> None:
    """Tell the operator, on standard error."""
    print(f"ddpm serve: {line}", file=sys.stderr, flush=True)


def _raise_stop(_number: int, _frame: FrameType | None) -> Never:
    # Once is enough: stopping must not be interrupted.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise _Stop
