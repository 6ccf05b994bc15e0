"""What this machine can do for training: its fast number format, and whether it can compile."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import torch

from ddpm_core.errors import InvalidInput
from ddpm_core.training.recipe import Precision


def precision_for(wanted: Precision, device: torch.device) -> Precision:
    """Give the wanted precision, `auto` resolved: bf16 where the hardware computes in it, else fp32.

    Raises:
        InvalidInput: fp16 without a GPU.
    """
    if wanted is Precision.FP16 and device.type == "cpu":
        raise InvalidInput(
            "out_of_range", "precision = fp16 needs a GPU.", field="precision", given="fp16", allowed="auto, bf16, fp32"
        )
    if wanted is not Precision.AUTO:
        return wanted
    if device.type == "cuda":
        return Precision.BF16 if torch.cuda.is_bf16_supported(including_emulation=False) else Precision.FP16
    return Precision.BF16 if _cpu_has_bf16() else Precision.FP32


def can_compile(device: torch.device) -> bool:
    """Tell whether `torch.compile` has what it needs: a compiler, Python's headers, and a GPU that is new enough."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (7, 0):
        return False
    headers = Path(sysconfig.get_path("include"), "Python.h")
    compilers = ("gcc", "clang") if device.type == "cuda" else ("g++", "clang++")
    return headers.exists() and any(shutil.which(name) for name in compilers)


def _cpu_has_bf16() -> bool:
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8") if info.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags
