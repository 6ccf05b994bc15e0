"""The tick of pixel guidance whose gradient goes through the network, as in the course's other variant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ddpm_core.denoiser import Denoiser
from ddpm_core.guidance import pixel_displacement_through
from ddpm_core.sampling.tick import SampleState, advance


def advance_through_network(denoiser: Denoiser, states: Sequence[SampleState]) -> list[SampleState]:
    """Advance as `advance` does, with the gradient of pixel guidance through the network.

    It costs a second call and its gradient: too slow and too hungry to serve.

    Args:
        denoiser: the network.
        states: none of them done, all with a target.
    """
    free = [replace(state, table=replace(state.table, pixel=np.zeros(len(state.table)))) for state in states]
    advanced = advance(denoiser, free)
    x = torch.stack([state.x for state in states])
    target = torch.stack([state.target for state in states if state.target is not None])
    levels = [int(state.table.levels[state.position]) for state in states]
    numbers = np.array([(state.table.pixel[state.position], state.table.shift[state.position]) for state in states])
    step, shift = torch.tensor(numbers.T, dtype=x.dtype, device=x.device)
    level = torch.tensor(levels, device=x.device)
    signal = torch.tensor(denoiser.schedule.alpha_bar[levels] ** 0.5).to(x)
    delta = pixel_displacement_through(lambda x: denoiser(x, level), x, target, step, signal)
    moved = shift.view(-1, 1, 1, 1) * delta
    return [
        replace(after, table=state.table, x=after.x + moved[i])
        for i, (state, after) in enumerate(zip(states, advanced, strict=True))
    ]
