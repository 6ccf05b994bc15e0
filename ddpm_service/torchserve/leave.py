"""Letting a version's requests end before it goes, for whoever is not the front door itself."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from ddpm_service.torchserve.api import Api
from ddpm_service.torchserve.management import Management
from ddpm_service.torchserve.server import TorchServe

_LOOK_SECONDS = 0.5
# A worker tells its figures once a second, so a new request may be missing from them.
_TOLD_SECONDS = 2.0
# Without a front door nobody keeps new requests away, so the last one may never come. And a `ddpm serve` that serves
# another file of the same folder takes nothing away.
_LONGEST_SECONDS = 300.0


def wait_until_unused(server: TorchServe, name: str, version: str, *, supervised: Callable[[], bool]) -> None:
    """Return when no request runs on a version that models.yaml does not want any more, or after five minutes.

    Where `ddpm serve` is to take the version away, it lets no more requests in and does so after the last one: that is
    waited for. TorchServe alone is asked how many requests run.

    Args:
        server: the TorchServe.
        name: the model.
        version: which of its versions.
        supervised: whether `ddpm serve` is to take it away, asked at every look.

    Raises:
        ManagementError: TorchServe cannot be reached.
        OSError: nor can its metrics.
    """
    management = Management(server.management_url)
    began = used = time.monotonic()
    while any(served.version == version and served.workers for served in management.describe(name)):
        now = time.monotonic()
        if supervised() or _running(server.metrics_url, name, version):
            used = now
        if now - used > _TOLD_SECONDS or now - began > _LONGEST_SECONDS:
            return
        time.sleep(_LOOK_SECONDS)


def _running(metrics_url: str, name: str, version: str) -> float:
    """Requests that a version works on or holds in its queue."""
    text = Api(metrics_url).request("GET", "/metrics", timeout=30).text
    wanted = {"ModelName": name, "ModelVersion": version}
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        if family.name in ("ddpm_requests_running", "ddpm_requests_queued")
        for sample in family.samples
        if wanted.items() <= sample.labels.items()
    )
