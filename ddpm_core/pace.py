"""How fast a model is on this machine, measured once before it serves: images a call, and what a call costs."""

from __future__ import annotations

from functools import partial

import torch

from ddpm_core.denoiser import Denoiser
from ddpm_core.device import out_of_memory
from ddpm_core.timing import in_turn

_BUDGET = 0.5
"""Seconds for each size: whoever starts a service waits for it, and a long call is steady by itself."""


@torch.inference_mode()
def measure_max_rows(denoiser: Denoiser, shape: tuple[int, int, int], *, most: int | None = None) -> tuple[int, float]:
    """Find the smallest batch whose time per row is within 10 % of the best, and that time.

    Args:
        denoiser: the network.
        shape: (C, H, W) of an image.
        most: largest batch to try; 64 on a CPU and 512 on a GPU unless said.

    Returns:
        Rows, and seconds per row. Memory that runs out ends the search.
    """
    most = most or (64 if denoiser.device.type == "cpu" else 512)
    times: dict[int, float] = {}
    rows = 1
    while rows <= most:
        x = torch.randn(rows, *shape, device=denoiser.device)
        level = torch.full((rows,), denoiser.schedule.num_levels // 2, device=denoiser.device)
        try:
            (seconds,) = in_turn([partial(denoiser, x, level)], 6, budget=_BUDGET)
            times[rows] = min(seconds) / rows
        except Exception as error:
            if rows == 1 or not out_of_memory(error):
                raise
            break
        if rows > 2 and times[rows] > 0.97 * min(list(times.values())[:-1]):
            break  # larger calls no longer pay; the shortest ones are too unsteady to tell
        rows *= 2
    fastest = min(times.values())
    chosen = min(rows for rows, seconds in times.items() if seconds <= 1.1 * fastest)
    return chosen, times[chosen]


@torch.inference_mode()
def measure_guide_cost(denoiser: Denoiser, shape: tuple[int, int, int], rows: int) -> float:
    """Give the time of a call of the guide, in calls of the network, by turns; 0 where there is no guide.

    Args:
        denoiser: the network and its guide.
        shape: (C, H, W) of an image.
        rows: images in the call.
    """
    if denoiser.guide is None:
        return 0.0
    x = torch.randn(rows, *shape, device=denoiser.device)
    level = torch.full((rows,), denoiser.schedule.num_levels // 2, device=denoiser.device)
    network, guide = in_turn([partial(denoiser, x, level), partial(denoiser.guide, x, level)], 6, budget=_BUDGET)
    return min(guide) / min(network)
