"""What happens when memory is short, and when the device is lost."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import torch

from ddpm_core import events
from ddpm_core.engine import StepEngine
from ddpm_core.plan import make_plan
from gpu_steps.setting import ROOT, Setting

_LOST = """
import sys
from pathlib import Path

sys.path[:0] = sys.argv[1:3]
import torch
from gpu_steps.frontend import serve, start
from gpu_steps.setting import Setting

folder = Path(sys.argv[3])
setting = Setting.here(tiny=True, folder=folder)
handler, context = start(folder, setting)

def fail(x, *others):
    if not setting.is_gpu:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    return torch.zeros(1, device=x.device)[torch.tensor([2**20], device=x.device)] + x

handler.engine.denoiser.network.forward = fail
serve(handler, context, [{"num_inference_steps": b"2"}])
"""


def memory(setting: Setting) -> dict[str, Any]:
    """Cap the memory and run far more images at once than fit: all must come, in smaller calls."""
    pipeline = setting.pipeline()
    rows = setting.sized(512, 4)
    engine = StepEngine(pipeline.denoiser, max_rows=rows, capacity=1000)
    for request in range(max(1, rows // 16)):
        plan = make_plan(pipeline.bundle, seed=request, num_images=min(16, rows), num_inference_steps=2)
        engine.admit(str(request), plan)
    network = pipeline.denoiser.network
    if setting.is_gpu:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**29) / total)
    else:
        forward = network.forward
        network.forward = lambda x, *others: forward(x, *others) if len(x) <= 2 else _no_memory()
    try:
        happened = [event for _ in range(100) if len(engine) for _, event in engine.tick()]
    finally:
        if setting.is_gpu:
            torch.cuda.set_per_process_memory_fraction(1.0)
        else:
            del network.forward
    return {
        "asked_rows": rows,
        "rows_after": engine.max_rows,
        "images": sum(isinstance(event, events.Image) for event in happened),
        "failed": sum(isinstance(event, events.Failed) for event in happened),
    }


def lost_device(setting: Setting) -> dict[str, Any]:
    """Make a call in a child that ends a GPU for its process: the worker must end with 1 and say so."""
    command = [sys.executable, "-c", _LOST, str(ROOT), str(ROOT / "scripts"), str(setting.folder / "lost")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=setting.sized(120, 1200), cwd=ROOT)
    said = [line for line in done.stderr.splitlines() if "the device is lost" in line]
    if done.returncode != 1 or not said:
        raise RuntimeError(f"it ended with {done.returncode}: {done.stderr[-500:]}{done.stdout[-200:]}")
    return {"exit": done.returncode, "said": said[0]}


def _no_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")
