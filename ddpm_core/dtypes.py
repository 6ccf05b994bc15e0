"""The number format in which a model is served: the fastest on its device that still makes the same pictures.

On a GPU float16 comes first: it has three bits more than bfloat16, which moved 4 of 32 images by two grey levels where
sums were only added in another order. It is taken where it is finite, within one grey level of float32, and faster.
"""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ddpm_core.bundle import Bundle
from ddpm_core.denoiser import Denoiser, fastest_dtype, make_ready
from ddpm_core.device import is_lost, out_of_memory
from ddpm_core.pixels import to_pixels
from ddpm_core.plan import make_plan
from ddpm_core.sampling import sample
from ddpm_core.timing import in_turn

ALLOWED = 1
"""Grey levels by which a picture may differ from that of float32."""
_IMAGES = 8
_ROWS = 64


@torch.inference_mode()
def choose_dtype(bundle: Bundle, network: nn.Module, guide: nn.Module | None, device: torch.device) -> torch.dtype:
    """Choose by trying; it takes some seconds on a GPU.

    Args:
        bundle: the model.
        network: in float32; left as it is.
        guide: likewise; None where the model has none.
        device: where it will run. On a CPU time alone decides between float32 and bfloat16.
    """
    if device.type == "cpu":
        return fastest_dtype(network, torch.randn(2, *bundle.network_shape), device)

    def ready(dtype: torch.dtype) -> Denoiser:
        ours, its_guide = (
            None if each is None else make_ready(copy.deepcopy(each), device, dtype) for each in (network, guide)
        )
        assert ours is not None
        return bundle.denoiser(ours, device, dtype, its_guide)

    plain = ready(torch.float32)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # in which a GPU's float32 has 10 bits
        expected = pictures(bundle, plain)
    for dtype in _short():
        try:
            short = ready(dtype)
            if is_faithful(pictures(bundle, short), expected) and _is_faster(short, plain, bundle.shape):
                return dtype
        except RuntimeError as error:  # brought code that works in float32 alone
            if is_lost(error):
                raise
    return torch.float32


def _short() -> list[torch.dtype]:
    """Give the formats to try, the more exact one first; before Ampere a GPU only imitates bfloat16."""
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return [torch.float16, *([torch.bfloat16] if native else [])]


def pictures(bundle: Bundle, denoiser: Denoiser) -> NDArray[np.int16] | None:
    """Make a few pictures the usual way, (B, H, W, C) in grey levels; None where they are not finite."""
    images = sample(denoiser, make_plan(bundle, num_images=_IMAGES, seed=0).start())
    if not images.isfinite().all():
        return None
    return np.stack([to_pixels(image) for image in images]).astype(np.int16)


def is_faithful(found: NDArray[np.int16] | None, expected: NDArray[np.int16] | None) -> bool:
    """Tell whether pictures differ by no more than `ALLOWED`."""
    return found is not None and expected is not None and int(np.abs(found - expected).max()) <= ALLOWED


def _is_faster(short: Denoiser, plain: Denoiser, shape: tuple[int, int, int]) -> bool:
    """Time both at a serving batch, or at the largest that fits."""
    rows = _ROWS
    while True:
        try:
            x = torch.randn(rows, *shape, device=plain.device)
            level = torch.full((rows,), plain.schedule.num_levels // 2, device=plain.device)
            times = in_turn([partial(short, x, level), partial(plain, x, level)], 6, budget=3.0)
        except Exception as error:
            if rows == 1 or not out_of_memory(error):
                raise
        else:
            return min(times[0]) < min(times[1])
        rows //= 2
