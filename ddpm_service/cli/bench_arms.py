"""The programs that ours is compared with: the same weights, table and noise in a plain loop, served two other ways."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def flask_and_lock(bundle: str, dtype: str, port: int) -> None:
    """Serve a bundle by Flask: one request at a time makes its picture, the others wait for the lock."""
    from flask import Flask, Response, request

    make, lock, app = _maker(bundle, dtype), threading.Lock(), Flask(__name__)

    @app.get("/ready")
    def ready() -> str:
        return "ready"

    @app.post("/generate")
    def generate() -> Response:
        with lock:
            return Response(make([request.get_json()])[0], mimetype="image/png")

    app.run("127.0.0.1", port, threaded=True)


def batching(bundle: str, dtype: str) -> Callable[[list[Mapping[str, Any]] | None, Any], list[bytes] | None]:
    """A TorchServe handler: the requests of a batch run together, and are answered together."""
    make: list[Callable[[Sequence[Mapping[str, Any]]], list[bytes]]] = []

    def handle(data: list[Mapping[str, Any]] | None, context: Any) -> list[bytes] | None:
        if not make:
            make.append(_maker(bundle, dtype))
        if data is None:
            return None
        for row in range(len(data)):
            context.set_response_content_type(row, "image/png")
        bodies = [entry["body"] for entry in data]
        return make[0]([body if isinstance(body, dict) else json.loads(body) for body in bodies])

    return handle


def _maker(bundle: str, dtype: str) -> Callable[[Sequence[Mapping[str, Any]]], list[bytes]]:
    """Load a bundle; make one picture for each of some requests, all in one loop until the longest is done."""
    import torch

    from ddpm_core import load
    from ddpm_core.faces import encode
    from ddpm_core.pixels import to_pixels
    from ddpm_core.plan import make_plan
    from ddpm_core.sampling import sample

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    pipeline = load(bundle, dtype=dtype)

    def make(requests: Sequence[Mapping[str, Any]]) -> list[bytes]:
        plans = [
            make_plan(pipeline.bundle, None, num_inference_steps=each["num_inference_steps"], seed=each["seed"])
            for each in requests
        ]
        images = sample(pipeline.denoiser, [state for plan in plans for state in plan.start()])
        return [encode(to_pixels(image)) for image in images]

    make([{"num_inference_steps": 2, "seed": 0}])
    return make
