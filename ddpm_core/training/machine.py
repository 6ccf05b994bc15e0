"""What this machine can do for training: its fast number format, and whether it can compile."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import torch

from ddpm_core.errors import InvalidInput
from ddpm_core.precision import Precision


def precision_for(wanted: Precision, device: torch.device) -> Precision:
    """Give the wanted precision, `auto` resolved: bfloat16 where the hardware computes in it, else float32.

    Raises:
        InvalidInput: float16 without a GPU.
    """
    if wanted is Precision.FLOAT16 and device.type == "cpu":
        raise InvalidInput(
            "out_of_range",
            "precision = float16 needs a GPU.",
            field="precision",
            given="float16",
            allowed="auto, bfloat16, float32",
        )
    if wanted is not Precision.AUTO:
        return wanted
    if device.type == "cuda":
        return Precision.BFLOAT16 if torch.cuda.is_bf16_supported(including_emulation=False) else Precision.FLOAT16
    return Precision.BFLOAT16 if _cpu_has_bf16() else Precision.FLOAT32


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
