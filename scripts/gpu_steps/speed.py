"""How fast is the network: a call by batch, format and size; a tick by the profiler; graphs and Inductor."""

from __future__ import annotations

import copy
import logging
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from ddpm_core.denoiser import Call, called, make_ready
from ddpm_core.device import out_of_memory
from ddpm_core.engine import StepEngine
from ddpm_core.graphs import Record, Recording, Replayed, compiled, cuda_graph, quickened
from ddpm_core.plan import make_plan
from ddpm_core.training import recipe as recipes
from ddpm_core.training.networks import build
from gpu_steps.setting import ROOT, Setting, name_of

LARGE = {
    "class": "UNet2DModel",
    "block_out_channels": [128, 128, 256, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
    "attention_head_dim": None,
}
"""The network of google/ddpm-celebahq-256, 113.7M parameters."""
RECIPES = ROOT / "recipes"


def calls(setting: Setting) -> dict[str, Any]:
    """Time a call and take its peak memory, by side, format and batch; beside what a matrix product reaches here."""
    networks = {
        "64 px": (_read("faces-64"), (12, 32, 32)),
        "128 px": (_read("faces-128"), (48, 32, 32)),
        "256 px": (recipes.change(recipes.Recipe(), {"image_size": 256, "network": LARGE}), (3, 256, 256)),
    }
    batches = setting.sized([1, 2, 4, 8, 16, 32, 64, 128, 256, 512], [1, 2])
    found: dict[str, Any] = {"matmul_tflops": {name_of(dtype): _matmul(setting, dtype) for dtype in setting.dtypes}}
    for side, (recipe, shape) in networks.items():
        if setting.tiny and side == "256 px":
            continue
        network = build(recipe)
        flops = _flops(network, shape)
        for dtype in setting.dtypes:
            ready = make_ready(copy.deepcopy(network), setting.device, dtype)
            found[f"{side} {name_of(dtype)}"] = {
                "gflop_an_image": round(flops / 1e9, 2),
                "batches": _by_batch(setting, ready, shape, dtype, batches, flops),
            }
            del ready
            _empty(setting)
    return found


def tick(setting: Setting) -> dict[str, Any]:
    """Look at ticks of full batches through the profiler: what the GPU was asked for, and what took the time."""
    found = {}
    pipeline = setting.pipeline()
    target = _target(setting)
    rows, ticks = setting.sized(64, 2), setting.sized(5, 1)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if setting.is_gpu else [])]
    for mode, how in {"ddpm": {"sampler": "ddpm"}, "likeness": {"mode": "likeness"}}.items():
        engine = StepEngine(pipeline.denoiser, max_rows=rows)
        pixels = target if mode == "likeness" else None
        for request in range(max(1, rows // 16)):
            plan = make_plan(pipeline.bundle, pixels, seed=request, num_images=min(rows, 16), **how)
            engine.admit(str(request), plan)
        engine.tick()
        engine.tick()
        with profile(activities=activities) as watched:
            begin = time.perf_counter()
            for _ in range(ticks):
                engine.tick()
            wall = (time.perf_counter() - begin) / ticks
        found[mode] = {"rows": rows, "ms_a_tick": round(1000 * wall, 3), **_of_profile(watched, ticks)}
    return found


def graphs(setting: Setting) -> dict[str, Any]:
    """Compare calls of the embedded network, or of a small one, with replayed ones; then choose as the service does."""
    pipeline = setting.pipeline()
    dtype, shape = pipeline.denoiser.dtype, pipeline.bundle.network_shape
    network = pipeline.denoiser.network if setting.is_gpu else make_ready(_Small(shape[0]), setting.device, dtype)
    found: dict[str, Any] = {}
    with torch.inference_mode():
        for rows in setting.sized([8, 64, 128], [1]):
            x, t = _input(setting, rows, shape, dtype)
            expected = called(network)(x, t)
            row: dict[str, Any] = {"eager_ms": _ms(setting, partial(called(network), x, t))}
            for name, kernels in {"graph": network, "inductor": compiled(network)}.items():
                row |= _replayed(setting, name, Replayed(kernels, _record(setting)), x, t, expected)
            found[f"{rows} rows"] = row
    return found | {"service": _chosen(setting, network)}


class _Small(nn.Module):
    """What is compiled in a moment."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return torch.tanh(self.conv(x)) + timestep.to(x.dtype).view(-1, 1, 1, 1)


def _read(name: str) -> recipes.Recipe:
    return recipes.read(Path(RECIPES / f"{name}.yaml"))


def _flops(network: nn.Module, shape: tuple[int, int, int]) -> int:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.randn(1, *shape), torch.zeros(1, dtype=torch.long))
    return counter.get_total_flops()


def _by_batch(
    setting: Setting,
    network: nn.Module,
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    batches: list[int],
    flops: int,
) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for rows in batches:
        try:
            if setting.is_gpu:
                torch.cuda.reset_peak_memory_stats()
            x, t = _input(setting, rows, shape, dtype)
            with torch.inference_mode():
                seconds = setting.seconds(partial(network, x, t))
        except Exception as error:
            if not out_of_memory(error):
                raise
            found[rows] = "out of memory"
            break
        found[rows] = {
            "ms": round(1000 * seconds, 3),
            "tflops": round(rows * flops / seconds / 1e12, 2),
            "peak_mib": torch.cuda.max_memory_allocated() // 2**20 if setting.is_gpu else None,
        }
        if seconds > setting.sized(0.6, 10):
            break  # larger ones tell no more and take the time of others
    return found


def _matmul(setting: Setting, dtype: torch.dtype) -> float:
    side = setting.sized(8192, 256)
    a, b = (torch.randn(side, side, device=setting.device, dtype=dtype) for _ in range(2))
    return round(2 * side**3 / setting.seconds(lambda: a @ b) / 1e12, 2)


def _of_profile(watched: profile, ticks: int) -> dict[str, Any]:
    events = watched.events()
    on_device = [event for event in events if str(event.device_type).endswith("CUDA")]
    copies = Counter(event.name for event in on_device if event.name.startswith("Memcpy"))
    waits = sum("Synchronize" in event.name for event in events)
    costly = sorted(watched.key_averages(), key=lambda row: -max(row.self_device_time_total, row.self_cpu_time_total))
    return {
        "kernels_a_tick": (len(on_device) - copies.total()) / ticks,
        "copies_a_tick": {name: count / ticks for name, count in copies.items()},
        "waits_a_tick": waits / ticks,
        "operations_a_tick": sum(event.name.startswith("aten::") for event in events) / ticks,
        "costly": [
            {
                "name": row.key[:80],
                "calls": row.count / ticks,
                "device_ms": round(row.self_device_time_total / 1000 / ticks, 3),
                "host_ms": round(row.self_cpu_time_total / 1000 / ticks, 3),
            }
            for row in costly[:15]
        ],
    }


def _replayed(
    setting: Setting, name: str, replayed: Replayed, x: Tensor, t: Tensor, expected: Tensor
) -> dict[str, Any]:
    begin = time.monotonic()
    try:
        moved = _apart(replayed(x, t), expected)
    except Exception as error:  # no compiler, or a network that it does not take
        return {name: f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    return {
        f"{name}_first_seconds": round(time.monotonic() - begin, 1),
        f"{name}_ms": _ms(setting, partial(replayed, x, t)),
        f"{name}_moved_by": moved,
    }


def _chosen(setting: Setting, network: nn.Module) -> dict[str, Any]:
    """Have the denoiser made as with DDPM_CUDA_GRAPHS=1: what the log says of it, and how long it takes."""
    pipeline = setting.pipeline()
    denoiser = pipeline.denoiser
    if not setting.is_gpu:
        denoiser = pipeline.bundle.denoiser(network, setting.device, denoiser.dtype, network)
    said: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger(quickened.__module__)
    log.addHandler(listener)
    log.setLevel(logging.INFO)
    begin = time.monotonic()
    quickened(pipeline.bundle, denoiser, setting.sized(64, 1), _record(setting))
    log.removeHandler(listener)
    return {"seconds": round(time.monotonic() - begin, 1), "said": said}


def _record(setting: Setting) -> Record:
    return cuda_graph if setting.is_gpu else _computed_again


def _computed_again(call: Call, x: Tensor, timestep: Tensor) -> Recording:
    """Stand in for a graph where there is no GPU."""
    out = call(x, timestep)
    return Recording(x, timestep, out, lambda: out.copy_(call(x, timestep)))


def _input(setting: Setting, rows: int, shape: tuple[int, int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    x = torch.randn(rows, *shape, device=setting.device).to(dtype, memory_format=torch.channels_last)
    return x, torch.full((rows,), 500, device=setting.device)


def _target(setting: Setting) -> Any:
    return np.array(setting.pipeline()(seed=5, num_inference_steps=setting.sized(25, 2))[0])


def _ms(setting: Setting, call: Any) -> float:
    return round(1000 * setting.seconds(call, 30), 3)


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).abs().max())


def _empty(setting: Setting) -> None:
    if setting.is_gpu:
        torch.cuda.empty_cache()
