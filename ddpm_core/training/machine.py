"""What this machine can do for training: its fast number format, whether it can compile, and who goes first."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator

from ddpm_core.errors import InvalidInput
from ddpm_core.precision import Precision

_PATIENCE = timedelta(hours=12)


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


def missing_to_compile(device: torch.device) -> str:
    """Say what `torch.compile` needs and this machine lacks; nothing where it lacks nothing."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (7, 0):
        return "a GPU of compute capability 7.0"
    compilers = ("gcc", "clang") if device.type == "cuda" else ("g++", "clang++")
    if not any(shutil.which(name) for name in compilers):
        return f"a compiler ({' or '.join(compilers)})"
    return "" if Path(sysconfig.get_path("include"), "Python.h").exists() else "the headers of Python (python3-dev)"


@contextmanager
def first_process_first(accelerator: Accelerator) -> Iterator[None]:
    """Let the first process go through a block before the others, however long it takes.

    What the processes say to each other otherwise fails after some ten minutes, so that none waits for a dead one.
    """
    if accelerator.num_processes == 1:
        yield
        return
    waiting = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
    if not accelerator.is_main_process:
        torch.distributed.barrier(waiting)
    yield
    if accelerator.is_main_process:
        torch.distributed.barrier(waiting)


def _cpu_has_bf16() -> bool:
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8") if info.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags
