"""Are the pictures right: one image, the CPU's pictures by mode and format, and a row alone and in company."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import time
from importlib import metadata
from typing import Any

import numpy as np
import torch

from ddpm_core.pixels import to_pixels
from ddpm_core.plan import Plan, make_plan
from ddpm_core.sampling import sample
from gpu_steps.setting import Setting, name_of

PACKAGES = ("diffusers", "pydantic", "numpy", "accelerate", "opencv-python-headless", "pillow", "safetensors")
MODES: dict[str, dict[str, Any]] = {
    "ddpm": {"mode": "none", "sampler": "ddpm"},
    "dpmpp_2m": {"mode": "none", "sampler": "dpmpp_2m"},
    "ddim": {"mode": "none", "sampler": "ddim"},
    "lcm": {"mode": "none", "sampler": "lcm"},
    "likeness": {"mode": "likeness"},
    "celebrity": {"mode": "celebrity"},
    "pixel": {"mode": "pixel"},
}


def versions(setting: Setting) -> dict[str, Any]:
    """Say what is here, and make one image with what the service would choose."""
    begin = time.monotonic()
    pipeline = setting.pipeline()
    loaded = time.monotonic()
    (image,) = pipeline(seed=0, num_inference_steps=setting.sized(25, 2))
    made = time.monotonic()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "packages": {name: metadata.version(name) for name in PACKAGES if _is_installed(name)},
        "device": torch.cuda.get_device_name(0) if setting.is_gpu else platform.processor() or platform.machine(),
        "capability": torch.cuda.get_device_capability(0) if setting.is_gpu else None,
        "driver": _driver(),
        "dtype": name_of(pipeline.denoiser.dtype),
        "load_seconds": round(loaded - begin, 2),
        "image_seconds": round(made - loaded, 3),
        "image_mean": round(float(np.asarray(image).mean()), 2),
        "image_sha256": hashlib.sha256(np.asarray(image).tobytes()).hexdigest(),
    }


def parity(setting: Setting) -> dict[str, Any]:
    """Compare pictures of every mode and format with those of the CPU in float32, in grey levels."""
    count, steps = setting.sized(4, 1), setting.sized(None, 2)
    reference = setting.pipeline(torch.float32, torch.device("cpu"))
    target = np.array(reference(seed=5, num_inference_steps=steps)[0])
    modes = setting.sized(list(MODES), ["dpmpp_2m", "likeness"])
    plans = {mode: _plan(setting, mode, target, count, steps) for mode in modes}
    expected = {mode: pixels_of(reference, plan) for mode, plan in plans.items()}
    rows: dict[str, Any] = {}
    for dtype in setting.dtypes:
        pipeline = setting.pipeline(dtype)
        for mode, plan in plans.items():
            apart = np.abs(pixels_of(pipeline, plan) - expected[mode])
            rows[f"{name_of(dtype)} {mode}"] = {"most": int(apart.max()), "share_above_1": float((apart > 1).mean())}
    return {"grey_levels_from_cpu_float32": rows, "tf32_convolutions": torch.backends.cudnn.allow_tf32}


def together(setting: Setting) -> dict[str, Any]:
    """Compare a row alone with the same row in batches: one network call, and one whole picture at the largest."""
    rows: dict[str, Any] = {}
    for dtype in setting.dtypes:
        pipeline = setting.pipeline(dtype)
        denoiser, most = pipeline.denoiser, setting.sized(128, 4)
        x = torch.randn(most, *pipeline.bundle.shape, generator=torch.Generator().manual_seed(0)).to(denoiser.device)
        level = torch.full((most,), denoiser.schedule.num_levels // 2, device=denoiser.device)
        with torch.inference_mode():
            alone = denoiser(x[:1], level[:1])
            sizes = [2**k for k in range(1, most.bit_length())]
            moved = {size: float((denoiser(x[:size], level[:size])[:1] - alone).abs().max()) for size in sizes}
        steps, count = setting.sized(25, 2), setting.sized(16, 2)
        alone_picture = pixels_of(pipeline, make_plan(pipeline.bundle, seed=0, num_inference_steps=steps))[0]
        plan = make_plan(pipeline.bundle, seed=0, num_images=count, num_inference_steps=steps)
        rows[name_of(dtype)] = {
            "prediction_moved_by": moved,
            "picture_moved_by_grey_levels": int(np.abs(pixels_of(pipeline, plan)[0] - alone_picture).max()),
        }
    return rows


def pixels_of(pipeline: Any, plan: Plan) -> np.ndarray:
    """Carry a plan out: (images, H, W, 3)."""
    images = sample(pipeline.denoiser, plan.start())
    return np.stack([to_pixels(image) for image in images]).astype(np.int16)


def _plan(setting: Setting, mode: str, target: np.ndarray, count: int, steps: int | None) -> Plan:
    how = MODES[mode]
    pixels = None if how["mode"] == "none" else target
    bundle = setting.pipeline(torch.float32, torch.device("cpu")).bundle
    return make_plan(bundle, pixels, num_images=count, seed=1, num_inference_steps=steps, **how)


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
