"""TorchServe's management API, typed. Not to be exposed: whoever reaches it loads code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import requests

from ddpm_service.errors import ServiceError
from ddpm_service.torchserve.api import Api

_CONNECT_SECONDS = 5.0
# On loopback, of what is known without a worker; a Java that is stopped or out of memory says nothing.
_ANSWER_SECONDS = 10.0
# While it loads a version for somebody who waits for it, it answers nobody else.
_IMPATIENT_SECONDS = 3.0
# Registering and scaling wait for the worker, whose loading may take `startupTimeout`.
_LOAD_SECONDS = 660.0
_PAGE = 100


class ManagementError(ServiceError):
    """TorchServe refused, or could not be reached.

    Attributes:
        status: its HTTP status; None when it could not be reached.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Worker:
    """One worker process of a version."""

    status: str
    pid: int
    memory: int
    gpu: bool = False

    @property
    def ready(self) -> bool:
        """Whether it takes requests; a worker that is loading, dying or dead is `UNLOADING`."""
        return self.status == "READY"


@dataclass(frozen=True)
class ServedVersion:
    """One registered version, as TorchServe describes it."""

    name: str
    version: str
    archive: str
    workers: tuple[Worker, ...]
    retry_seconds: int

    @property
    def ready(self) -> bool:
        """Whether a worker takes requests."""
        return any(worker.ready for worker in self.workers)


class Management:
    """A client of TorchServe's management API.

    Args:
        url: where it listens, such as `http://127.0.0.1:8081` or `unix:/path`.

    Every method raises ManagementError.
    """

    def __init__(self, url: str) -> None:
        self._api = Api(url, "management")

    def ping(self) -> None:
        """Ask for an answer at once."""
        self._call("GET", "/models", {"limit": "1"}, _IMPATIENT_SECONDS)

    def models(self) -> list[str]:
        """Names of the registered models, sorted."""
        names: list[str] = []
        page: str | None = "0"
        while page is not None:
            answer = self._call("GET", "/models", {"limit": str(_PAGE), "next_page_token": page})
            names += [model["modelName"] for model in answer["models"]]
            page = answer.get("nextPageToken")
        return sorted(set(names))

    def describe(self, name: str) -> list[ServedVersion]:
        """All versions of a model; none if there is no such model."""
        try:
            return [_served(version) for version in self._call("GET", f"/models/{name}/all")]
        except ManagementError as error:
            if error.status == requests.codes.not_found:
                return []
            raise

    def default(self, name: str) -> str | None:
        """The version that answers for a model when none is named; None if there is no such model."""
        try:
            return _served(self._call("GET", f"/models/{name}")[0]).version
        except ManagementError as error:
            if error.status == requests.codes.not_found:
                return None
            raise

    def register(self, archive: str) -> None:
        """Register an archive of the model store and wait until its worker has loaded it."""
        self._call("POST", "/models", {"url": archive, "initial_workers": "1", "synchronous": "true"}, _LOAD_SECONDS)

    def scale(self, name: str, version: str, workers: int) -> None:
        """Set the number of workers of a version, 0 or 1, and wait for it; 0 cuts its running streams."""
        query = {"min_worker": str(workers), "max_worker": str(workers), "synchronous": "true"}
        self._call("PUT", f"/models/{name}/{version}", query, _LOAD_SECONDS)

    def set_default(self, name: str, version: str) -> None:
        """Let a version answer when none is named. TorchServe forgets this at a restart."""
        self._call("PUT", f"/models/{name}/{version}/set-default")

    def unregister(self, name: str, version: str) -> None:
        """Remove a version, cutting its running streams. The default goes last: while others exist that is refused."""
        self._call("DELETE", f"/models/{name}/{version}", timeout=_LOAD_SECONDS)

    def _call(
        self, method: str, path: str, query: dict[str, str] | None = None, timeout: float = _ANSWER_SECONDS
    ) -> Any:
        try:
            answer = self._api.request(method, path, params=query, timeout=(_CONNECT_SECONDS, timeout))
        except requests.RequestException as error:
            raise ManagementError(f"no TorchServe answers at {self._api.address} ({type(error).__name__})") from error
        try:
            body = answer.json()
        except requests.JSONDecodeError:
            body = {}
        if not answer.ok:
            message = body.get("message") or f"{method} {path}: HTTP {answer.status_code}"
            raise ManagementError(message, answer.status_code)
        return body


def _served(described: dict[str, Any]) -> ServedVersion:
    return ServedVersion(
        name=described["modelName"],
        version=described["modelVersion"],
        archive=described["modelUrl"],
        workers=tuple(
            Worker(worker["status"], worker["pid"], worker["memoryUsage"], worker["gpu"])
            for worker in described["workers"]
        ),
        retry_seconds=described["maxRetryTimeoutInSec"],
    )
