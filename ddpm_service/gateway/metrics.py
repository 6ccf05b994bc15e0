"""Figures of the front door, and TorchServe's own beside them, on a port that is not for the public."""

from __future__ import annotations

from collections.abc import Iterator

import aiohttp
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ddpm_api import EndEvent, ErrorEvent, Event, ImageEvent, PreviewEvent
from ddpm_api.errors import STATUS
from ddpm_service.gateway.backend import connector
from ddpm_service.torchserve.api import Api
from ddpm_service.torchserve.board import Board, State

_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_TORCHSERVE_SECONDS = 3.0
_LATENCIES = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
# How requests end, for every model from the start. A wrong request is counted under its error code.
_OUTCOMES = ("done", "cancelled", *(code for code, status in STATUS.items() if status >= 500))
_WAITS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)


class Metrics:
    """The figures; each instance has a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._answers = Counter(
            "ddpm_gateway_requests_total", "Requests by outcome", ["model", "outcome"], registry=self.registry
        )
        self._refusals = Counter(
            "ddpm_gateway_refusals_total", "Requests refused before a model was asked", ["code"], registry=self.registry
        )
        self._images = Counter("ddpm_gateway_images_total", "Finished images", ["model"], registry=self.registry)
        self._seconds = Histogram(
            "ddpm_gateway_request_seconds",
            "Time of a request that ended well",
            ["model"],
            buckets=_LATENCIES,
            registry=self.registry,
        )
        self._wait = Histogram(
            "ddpm_gateway_queue_wait_seconds",
            "Time that requests waited before their first step",
            ["model"],
            buckets=_WAITS,
            registry=self.registry,
        )
        self._first = Histogram(
            "ddpm_gateway_first_preview_seconds",
            "Time to the first preview",
            ["model"],
            buckets=_LATENCIES,
            registry=self.registry,
        )
        self.open = Gauge("ddpm_gateway_requests_open", "Requests under way or queued", registry=self.registry)
        self.ready = Gauge("ddpm_gateway_ready", "1 while the service is ready", registry=self.registry)

    def show(self, model: str) -> None:
        """Show the figures of a model from now on: a counter that first appears as 1 has not risen, to Prometheus."""
        for outcome in _OUTCOMES:
            self._answers.labels(model, outcome)
        for family in (self._images, self._seconds, self._wait, self._first):
            family.labels(model)

    def refused(self, code: str) -> None:
        """Count a request that was refused before a model was asked."""
        self._refusals.labels(code).inc()

    def follow(self, model: str) -> Story:
        """Take the figures of one request from its events."""
        return Story(self, model)


class VersionMetrics:
    """Where each version stands, and how often one that could be used had to be started again.

    Args:
        board: what is served; looked at after each change.
        metrics: shows the figures, and those of each model that is served.
    """

    def __init__(self, board: Board, metrics: Metrics) -> None:
        self._board, self._metrics = board, metrics
        self._usable: set[tuple[str, str]] = set()
        self._restarts = Counter(
            "ddpm_gateway_restarts_total",
            "Times that a version lost its worker, or TorchServe as a whole",
            ["model", "version"],
            registry=metrics.registry,
        )
        board.listen(self._look)
        metrics.registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One series a version: its state now, and whether it answers when none is named."""
        family = GaugeMetricFamily(
            "ddpm_gateway_version", "1 for each version", labels=["model", "version", "state", "default"]
        )
        for name, model in self._board.models().items():
            for version, standing in model.versions.items():
                default = "yes" if version == model.default else "no"
                family.add_metric([name, version, standing.state, default], 1)
        yield family

    def _look(self) -> None:
        models = self._board.models()
        for name in models:
            self._metrics.show(name)
        states = {
            (name, version): standing.state
            for name, model in models.items()
            for version, standing in model.versions.items()
        }
        for key in self._usable:
            if states.get(key) is State.LOADING:
                self._restarts.labels(*key).inc()
        self._usable = {key for key, state in states.items() if state in {State.READY, State.SILENT}}
        for key in self._usable:
            self._restarts.labels(*key)  # shown as 0 from the start, as `Metrics.show` does


class Story:
    """One request of a served model; `model` must be a name that is served, or labels would grow without bound."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics = metrics
        self._model = model
        self._previews = 0
        self.images = 0
        self.outcome = "cancelled"

    def feed(self, event: Event, seconds: float) -> None:
        """Take the next event, so many seconds after the request came."""
        metrics, model = self._metrics, self._model
        match event:
            case PreviewEvent():
                if not self._previews:
                    metrics._first.labels(model).observe(seconds)
                self._previews += 1
            case ImageEvent():
                self.images += 1
                metrics._images.labels(model).inc()
            case EndEvent():
                self.outcome = "done"
                metrics._seconds.labels(model).observe(seconds)
                metrics._wait.labels(model).observe(event.timing.queue_seconds)
            case ErrorEvent():
                self.outcome = event.error.code

    def close(self) -> None:
        """Count how it ended; without `end` or `error` the client left."""
        self._metrics._answers.labels(self._model, self.outcome).inc()


def metrics_app(metrics: Metrics, torchserve_url: str) -> Starlette:
    """The application of the metrics port: `GET /metrics`.

    Args:
        metrics: the front door's figures.
        torchserve_url: where TorchServe's own are; they are left out while it does not answer.
    """
    torchserve = Api(torchserve_url)

    async def answer(_request: Request) -> Response:
        own = generate_latest(metrics.registry)
        return Response(own + await _torchserve(torchserve), media_type=_TYPE)

    return Starlette(routes=[Route("/metrics", answer)])


async def _torchserve(api: Api) -> bytes:
    try:
        timeout = aiohttp.ClientTimeout(total=_TORCHSERVE_SECONDS)
        async with (
            aiohttp.ClientSession(connector=connector(api), timeout=timeout) as session,
            session.get(f"{api.url}/metrics") as response,
        ):
            return await response.read() if response.status == 200 else b""
    except (TimeoutError, aiohttp.ClientError):
        return b""
