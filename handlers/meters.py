"""The worker's figures, given to TorchServe, which shows them at its metrics port."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import yaml
from ts.metrics.metric_type_enum import MetricTypes

# Every figure is a line on the worker's standard output. So counters are summed up and told once in so many seconds.
_INTERVAL = 1.0


class Meters:
    """Counters, gauges and histograms as metrics.yaml names them.

    Args:
        cache: `ctx.metrics`.
        model: value of the dimension ModelName.
        version: value of the dimension ModelVersion.
    """

    def __init__(self, cache: Any, model: str, version: str) -> None:
        self._model = [model, version]
        self._counts: defaultdict[tuple[str, ...], float] = defaultdict(float)
        self._gauges: dict[tuple[str, ...], float] = {}
        self._told = 0.0
        # TorchServe knows only the metrics of the configuration that it was started with.
        named = yaml.safe_load(Path(__file__).with_name("metrics.yaml").read_text())["model_metrics"]
        known = set(cache.cache_keys())
        self._metrics = {
            metric["name"]: cache.get_metric(metric["name"], MetricTypes(kind))
            if f"{kind}:{metric['name']}" in known
            else cache.add_metric_to_cache(metric["name"], metric["unit"], metric["dimensions"], MetricTypes(kind))
            for kind, metrics in named.items()
            for metric in metrics
        }

    def count(self, name: str, value: float, *labels: str) -> None:
        """Add to a counter."""
        self._counts[name, *labels] += value

    def gauge(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._gauges[name, *labels] = value

    def observe(self, name: str, value: float) -> None:
        """Put a value into a histogram."""
        self._tell((name,), value)

    def flush(self, now: float, *, at_once: bool = False) -> None:
        """Tell what has changed, if the last time was long enough ago."""
        if not at_once and now - self._told < _INTERVAL:
            return
        self._told = now
        for key, value in [*self._counts.items(), *self._gauges.items()]:
            self._tell(key, value)
        self._counts.clear()
        self._gauges.clear()

    def _tell(self, key: tuple[str, ...], value: float) -> None:
        name, *labels = key
        self._metrics[name].add_or_update(round(value, 6), [*self._model, *labels])


def host_memory() -> int:
    """Resident memory of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def device_memory(device: torch.device) -> int:
    """Memory of the device that this process has taken, in bytes; 0 on a CPU."""
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0
