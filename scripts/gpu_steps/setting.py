"""Where the steps run and how large they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from ddpm_core import load
from ddpm_core.pipeline import Pipeline
from ddpm_core.timing import in_turn

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
BUNDLE = max((ROOT / "models" / "faces-64").iterdir())


@dataclass(frozen=True)
class Setting:
    """A device, sizes, and a folder for scratch."""

    device: torch.device
    tiny: bool
    folder: Path

    @classmethod
    def here(cls, *, tiny: bool, folder: Path) -> Setting:
        """Take the first GPU, or the CPU where there is none."""
        device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        return cls(device, tiny, folder)

    @property
    def is_gpu(self) -> bool:
        """Whether there is a GPU."""
        return self.device.type == "cuda"

    def sized(self, full: T, tiny: T) -> T:
        """Give the size for this run."""
        return tiny if self.tiny else full

    @property
    def dtypes(self) -> list[torch.dtype]:
        """Formats to look at; a CPU has no arithmetic for float16 to speak of."""
        return [torch.float32, torch.float16, torch.bfloat16] if self.is_gpu else [torch.float32, torch.bfloat16]

    def pipeline(self, dtype: torch.dtype | str = "auto", device: torch.device | None = None) -> Pipeline:
        """Give the embedded model in a format; each is loaded once."""
        return _loaded(str(device or self.device), str(dtype).removeprefix("torch."))

    def seconds(self, call: Callable[[], object], repeats: int = 10) -> float:
        """Give the least time of a call."""
        return min(in_turn([call], self.sized(repeats, 1), budget=4.0)[0])


@functools.cache
def _loaded(device: str, dtype: str) -> Pipeline:
    return load(BUNDLE, device=device, dtype=dtype)


def name_of(dtype: torch.dtype) -> str:
    """Give its name without torch's."""
    return str(dtype).removeprefix("torch.")
