"""What happens once, before a worker is READY: the model is loaded, measured, and has made an image."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import numpy as np
import torch

from ddpm_core import events, load
from ddpm_core.engine import StepEngine
from ddpm_core.faces import encode
from ddpm_core.graphs import quickened
from ddpm_core.pace import measure_guide_cost, measure_max_rows
from ddpm_core.pipeline import Pipeline
from ddpm_core.plan import make_plan
from handlers.cores import available_cores
from handlers.gpu import device_for, see_given_gpus
from handlers.settings import Settings

log = logging.getLogger(__name__)

FACE_DETECTOR = "DDPM_FACE_DETECTOR"
"""Environment variable: a YuNet file that finds faces in place of OpenCV's cascades."""


def load_engine(bundle: Path, gpu: int | None, settings: Settings) -> tuple[Pipeline, StepEngine]:
    """Make a bundle ready to serve.

    Args:
        bundle: its folder.
        gpu: the number of the GPU that TorchServe gives us; None for none.
        settings: how much the engine takes in.

    Raises:
        RuntimeError: the model cannot be served; one line says why.
    """
    begin = time.monotonic()
    torch.set_num_threads(available_cores())
    see_given_gpus()
    device = device_for(gpu, required=settings.require_gpu)
    detector = os.environ.get(FACE_DETECTOR)
    try:
        # Whoever registers an archive has its code run, the handler's own to begin with.
        pipeline = load(bundle, device=str(device), face_detector=Path(detector) if detector else None, run_code=True)
    except (ValueError, OSError) as error:
        raise RuntimeError(" ".join(str(error).split())) from None
    denoiser = pipeline.denoiser
    max_rows, seconds_per_row = measure_max_rows(denoiser, pipeline.bundle.shape)
    if settings.cuda_graphs and denoiser.device.type == "cuda":
        denoiser = pipeline.denoiser = quickened(pipeline.bundle, denoiser, max_rows)
    guide_cost = measure_guide_cost(denoiser, pipeline.bundle.shape, max_rows)
    engine = StepEngine(
        denoiser,
        max_rows=max_rows,
        ahead=0 if denoiser.device.type == "cpu" else 1,
        seconds_per_row=seconds_per_row,
        guide_cost=guide_cost,
        wholeness=pipeline.bundle.manifest.statistics.wholeness,
        capacity=settings.capacity,
        max_work=settings.max_work,
    )
    _make_an_image(pipeline, engine)
    manifest = pipeline.bundle.manifest
    log.info(
        "%s %s: %s, %d threads, %s, %d images a call, %.1f ms each%s, loaded in %.1f s",
        manifest.name,
        manifest.version,
        denoiser.device,
        torch.get_num_threads(),
        str(denoiser.dtype).removeprefix("torch."),
        max_rows,
        1000 * seconds_per_row,
        f" and {1000 * seconds_per_row * guide_cost:.1f} ms of its guide" if guide_cost else "",
        time.monotonic() - begin,
    )
    return pipeline, engine


def _make_an_image(pipeline: Pipeline, engine: StepEngine) -> None:
    """Go the served way once, guided, best of two: a model that cannot is not ready. The helpers start on the way."""
    selfie = encode(np.zeros((64, 64, 3), np.uint8), "png")
    target = pipeline.aim(selfie, align="center").pixels
    plan = make_plan(pipeline.bundle, target, num_images=2, mode="likeness", num_inference_steps=2, seed=0)
    engine.admit("load", plan, num_images=1)
    while len(engine):
        for _, event in engine.tick():
            if isinstance(event, events.Failed):
                raise RuntimeError(f"{pipeline.bundle.path} makes no image: {event.message}")
