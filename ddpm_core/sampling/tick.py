"""One tick: each image under way makes one network call, all in one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ddpm_core.denoiser import Denoiser
from ddpm_core.guidance import apart_displacement, auto_displacement, low_pass_displacement, pixel_displacement
from ddpm_core.sampling.noise import noise_key, noises
from ddpm_core.sampling.table import COLUMNS, StepTable


@dataclass(frozen=True, eq=False)
class SampleState:
    """One image under way. Immutable: a tick makes a new one, so a failed tick can simply be repeated.

    Attributes:
        table: the plan's numbers.
        seed: of this image's noise.
        x: (C, H, W) float32, the noisy image at `table.levels[position]`.
        position: network calls made so far.
        x0_prev: (C, H, W), the clipped, unguided clean prediction of the last call; None before the first.
        target: (C, H, W) in [−1, 1] that guidance aims at; None when unguided.
    """

    table: StepTable
    seed: int
    x: Tensor
    position: int = 0
    x0_prev: Tensor | None = None
    target: Tensor | None = None

    @property
    def done(self) -> bool:
        """True when no network call is left and `x` is the clean image."""
        return self.position >= len(self.table)

    def to(self, device: torch.device) -> SampleState:
        """Give this state with its tensors on `device`."""
        x0_prev, target = (None if t is None else t.to(device) for t in (self.x0_prev, self.target))
        return replace(self, x=self.x.to(device), x0_prev=x0_prev, target=target)


@torch.inference_mode()
def advance(denoiser: Denoiser, states: Sequence[SampleState]) -> list[SampleState]:
    """Make one network call for every state, and one of its guide where the table asks for it.

    Rows may differ in all but shape. Inputs are left untouched.

    Args:
        denoiser: the network.
        states: none of them done; x of equal shape (C, H, W).

    Returns:
        The states one call further, in the same order.
    """
    x = torch.stack([state.x for state in states])  # (B, C, H, W)
    level = torch.tensor([int(state.table.levels[state.position]) for state in states], device=x.device)
    rows = np.stack([state.table.row(state.position) for state in states])  # (B, columns)
    column = dict(zip(COLUMNS, torch.tensor(rows.T, dtype=x.dtype, device=x.device), strict=True))

    r = denoiser(x, level)
    if pushed := rows[:, COLUMNS.index("guide")].nonzero()[0].tolist():
        r_guide = denoiser.guided_by(x[pushed], level[pushed], r[pushed])
        delta = auto_displacement(r[pushed], r_guide, column["guide"][pushed])
        r = r.index_add(0, torch.tensor(pushed, device=r.device), delta)
    x0 = denoiser.clip(r)
    x_next = _each(column["A"]) * x + _each(column["B0"]) * x0
    # Terms that no row has are left out.
    if rows[:, COLUMNS.index("B1")].any():
        previous = torch.stack([x0[i] if s.x0_prev is None else s.x0_prev for i, s in enumerate(states)])
        x_next += _each(column["B1"]) * previous
    if rows[:, COLUMNS.index("R")].any():
        x_next += _each(column["R"]) * r
    if rows[:, COLUMNS.index("D")].any():
        keys = torch.tensor([noise_key(state.seed, state.position + 1) for state in states], device=x.device)
        x_next += _each(column["D"]) * noises(keys, x.shape[1:]).to(x.dtype)
    if guided := (rows[:, COLUMNS.index("weight")] + rows[:, COLUMNS.index("apart")]).nonzero()[0].tolist():
        targets = _targets(states, guided)
        strengths = (column[name][guided] for name in ("weight", "grid", "chroma"))
        delta = low_pass_displacement(x0[guided], targets, *strengths)
        delta = delta + apart_displacement(x0[guided] + delta, targets, column["apart"][guided])
        x_next[guided] += _each(column["shift"][guided]) * delta
    if guided := rows[:, COLUMNS.index("pixel")].nonzero()[0].tolist():
        delta = pixel_displacement(r[guided], _targets(states, guided), column["pixel"][guided])
        x_next[guided] += _each(column["shift"][guided]) * delta

    return [replace(state, x=x_next[i], position=state.position + 1, x0_prev=x0[i]) for i, state in enumerate(states)]


Tick = Callable[[Denoiser, Sequence[SampleState]], list[SampleState]]


def sample(
    denoiser: Denoiser,
    states: Sequence[SampleState],
    *,
    on_step: Callable[[Sequence[SampleState]], object] | None = None,
    tick: Tick = advance,
) -> Tensor:
    """Repeat the tick until every state is done; they may have different step counts.

    Args:
        denoiser: the network; the states are brought to its device.
        states: x of equal shape (C, H, W).
        on_step: called with all states after each tick.
        tick: `advance`, or another tick of the same form.

    Returns:
        (B, C, H, W) clean images, about in [−1, 1].
    """
    states = [state.to(denoiser.device) for state in states]
    while running := [i for i, state in enumerate(states) if not state.done]:
        following = list(states)
        for i, state in zip(running, tick(denoiser, [states[i] for i in running]), strict=True):
            following[i] = state
        states = following
        if on_step:
            on_step(states)
    return torch.stack([state.x for state in states])


def _each(column: Tensor) -> Tensor:
    """Shape (B,) for multiplication with (B, C, H, W)."""
    return column.view(-1, 1, 1, 1)


def _targets(states: Sequence[SampleState], rows: Sequence[int]) -> Tensor:
    targets = [states[i].target for i in rows]
    return torch.stack([t for t in targets if t is not None])
