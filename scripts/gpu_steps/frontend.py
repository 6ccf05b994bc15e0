"""TorchServe's side of a worker, without TorchServe: its context, and its loop of continuous batching."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ts.context import Context, RequestProcessor
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

from gpu_steps.setting import BUNDLE, ROOT, Setting
from handlers.ddpm_handler import Handler

HEADERS = {"Host": "localhost", "Accept": "application/x-ndjson", "content-type": "multipart/form-data"}


def start(folder: Path, setting: Setting, **settings: bool) -> tuple[Handler, Context]:
    """Load the embedded model as a worker would, with settings of the handler's."""
    folder.mkdir(exist_ok=True)
    if not (folder / "bundle").exists():
        (folder / "bundle").symlink_to(BUNDLE)
    metrics = MetricsCacheYamlImpl(str(ROOT / "handlers" / "metrics.yaml"))
    metrics.initialize_cache()
    gpu = 0 if setting.is_gpu else None
    context = Context("faces-64", str(folder), {}, 1001, gpu, "0.12.0", True, metrics, {"handler": settings})
    return Handler(context), context


def serve(handler: Handler, context: Any, requests: list[dict[str, bytes]]) -> tuple[list[float], list[float]]:
    """Send requests all at once; give the seconds of each handler call, and of each request until it ended.

    Raises:
        RuntimeError: a request failed.
    """
    waiting = {f"{time.monotonic_ns()}-{i}": request for i, request in enumerate(requests)}
    calls: list[float] = []
    ends: list[float] = []
    sent: set[str] = set()
    begin = time.perf_counter()
    while waiting:
        keys = list(waiting)
        data = [{} if key in sent else {name: bytearray(value) for name, value in waiting[key].items()} for key in keys]
        sent |= set(keys)
        context.request_ids = dict(enumerate(keys))
        context.request_processor = [RequestProcessor(HEADERS) for _ in keys]
        started = time.perf_counter()
        answers = handler(data, context)
        calls.append(time.perf_counter() - started)
        for i, key in enumerate(keys):
            if i in context.request_ids and context.stopping_criteria[i](answers[i]) is not False:
                if b'"error"' in answers[i]:
                    raise RuntimeError(answers[i].decode()[:300])
                ends.append(time.perf_counter() - begin)
                del waiting[key]
    return calls, ends
