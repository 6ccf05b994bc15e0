"""Which device a worker gets, and what is missing where a GPU is required and there is none."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import MutableMapping
from pathlib import Path

import torch

VISIBLE = "DDPM_VISIBLE_GPUS"
"""Environment variable: CUDA_VISIBLE_DEVICES as it was given, where TorchServe could not read it."""

_DEVICES = Path("/dev")


def see_given_gpus(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let CUDA see the GPUs by the names that were given to the service; call it before CUDA is asked anything."""
    if given := environment.pop(VISIBLE, None):
        environment["CUDA_VISIBLE_DEVICES"] = given


def device_for(gpu: int | None, *, required: bool) -> torch.device:
    """Give the device of a worker.

    Args:
        gpu: the number that TorchServe gives it; None where TorchServe found no GPU, which a slice of one (MIG) hides.
        required: whether a CPU will not do.

    Raises:
        RuntimeError: a GPU is required and there is none; it says what is missing.
    """
    if torch.cuda.is_available():
        return torch.device("cuda", gpu or 0)
    if required:
        raise RuntimeError(f"A GPU is required (DDPM_REQUIRE_GPU) and there is none: {'; '.join(_missing())}.")
    return torch.device("cpu")


def _missing() -> list[str]:
    """Say what a GPU needs and this machine lacks."""
    missing = []
    built, known = torch.version.cuda, _known_cuda()
    if built is None:
        missing.append("PyTorch is built without CUDA (the image whose tag ends with -cuda has it)")
    if shutil.which("nvidia-smi") is None:
        missing.append(f"nvidia-smi is not on PATH ({os.environ.get('PATH', '')})")
    if known is None:
        where = os.environ.get("LD_LIBRARY_PATH") or "not set"
        missing.append(f"the driver's library libcuda.so.1 is not found (LD_LIBRARY_PATH: {where})")
    elif built is not None and known < int(built.partition(".")[0]):
        missing.append(f"the driver knows CUDA {known} and PyTorch is built for {built} (docs/operations.md, Drivers)")
    if not any(_DEVICES.glob("nvidia[0-9]*")):
        missing.append(f"there is no device {_DEVICES / 'nvidia0'}")
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        missing.append("CUDA_VISIBLE_DEVICES hides all")
    return missing or ["the driver finds none; `nvidia-smi` tells more"]


def _known_cuda() -> int | None:
    """Give the CUDA version that the driver knows, such as 12; None without a driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    return version.value // 1000 if library.cuDriverGetVersion(ctypes.byref(version)) == 0 else None
