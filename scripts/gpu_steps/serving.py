"""How much is served: images a second of the engine by mode, and the handler with many uploads at once."""

from __future__ import annotations

import io
import time
from itertools import product
from typing import Any

import numpy as np

from ddpm_core.engine import StepEngine
from ddpm_core.graphs import quickened
from ddpm_core.pace import measure_guide_cost, measure_max_rows
from ddpm_core.plan import make_plan
from gpu_steps.setting import Setting

MODES: dict[str, dict[str, Any]] = {
    "unguided": {"sampler": "dpmpp_2m", "guide": 1},
    "likeness": {"mode": "likeness"},
    "ddpm": {"sampler": "ddpm"},
}


def throughput(setting: Setting) -> dict[str, Any]:
    """Let the engine work through a full queue, by mode: images a second; on a GPU with replayed calls too."""
    pipeline = setting.pipeline()
    rows, seconds = measure_max_rows(pipeline.denoiser, pipeline.bundle.shape)
    cost = measure_guide_cost(pipeline.denoiser, pipeline.bundle.shape, rows)
    target = np.array(pipeline(seed=5, num_inference_steps=setting.sized(25, 2))[0])
    found: dict[str, Any] = {"max_rows": rows, "ms_a_row": round(1000 * seconds, 3), "guide_cost": round(cost, 2)}
    images = setting.sized(16, 2)
    denoisers = {"": pipeline.denoiser}
    if setting.is_gpu:
        denoisers["replayed "] = quickened(pipeline.bundle, pipeline.denoiser, rows)
    for (kind, denoiser), (mode, how) in product(denoisers.items(), MODES.items()):
        engine = StepEngine(denoiser, max_rows=rows, seconds_per_row=seconds, guide_cost=cost, capacity=10_000)
        steps = setting.sized(25 if mode != "likeness" else None, 2)
        requests = setting.sized(max(8, 8 * rows // images), 2)
        for request in range(requests):
            pixels = target if mode == "likeness" else None
            engine.admit(
                str(request),
                make_plan(pipeline.bundle, pixels, seed=request, num_images=images, num_inference_steps=steps, **how),
            )
        ticks = []
        begin = time.perf_counter()
        while len(engine):
            started = time.perf_counter()
            engine.tick()
            ticks.append(time.perf_counter() - started)
        wall = time.perf_counter() - begin
        found[kind + mode] = {
            "images": requests * images,
            "images_a_second": round(requests * images / wall, 2),
            "ms_a_tick": round(1000 * float(np.median(ticks)), 3),
        }
    return found


def handler(setting: Setting) -> dict[str, Any]:
    """Send uploads to the handler all at once, as TorchServe does, with three lengths of a call and replayed calls."""
    from gpu_steps.frontend import serve, start

    handler, context = start(setting.folder / "archive", setting, cuda_graphs=True)
    count, steps = setting.sized(64, 2), setting.sized(9, 2)
    request = {"image": _upload(setting), "num_inference_steps": b"%d" % steps}
    found: dict[str, Any] = {"uploads": count, "max_rows": handler.engine.max_rows}
    serve(handler, context, [request])
    for seconds in (0.005, 0.01, 0.03):
        handler.settings = handler.settings.model_copy(update={"tick_seconds": seconds})
        begin = time.perf_counter()
        calls, ends = serve(handler, context, [request] * count)
        found[f"calls of {1000 * seconds:g} ms"] = {
            "requests_a_second": round(count / (time.perf_counter() - begin), 2),
            "seconds_p50": round(float(np.percentile(ends, 50)), 3),
            "seconds_p99": round(float(np.percentile(ends, 99)), 3),
            "call_ms_p50": round(1000 * float(np.percentile(calls, 50)), 2),
            "call_ms_p99": round(1000 * float(np.percentile(calls, 99)), 2),
        }
    return found


def _upload(setting: Setting) -> bytes:
    """A face of the model's own, as large as a crop from a phone."""
    file = io.BytesIO()
    image = setting.pipeline()(seed=5, num_inference_steps=setting.sized(25, 2))[0]
    image.resize((1024, 1024)).save(file, "JPEG", quality=90)
    return file.getvalue()
