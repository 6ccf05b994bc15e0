"""One tick: each image under way makes one network call, all in one batch; where the table says so two, of a pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm_core.denoiser import Denoiser
from ddpm_core.guidance import apart_displacement, auto_displacement, low_pass_displacement, pixel_displacement
from ddpm_core.sampling.noise import noise_key, noises
from ddpm_core.sampling.state import Batch, SampleState
from ddpm_core.sampling.table import COLUMNS
from ddpm_core.transfer import to_device


@torch.inference_mode()
def advance(denoiser: Denoiser, batch: Batch) -> Batch:
    """Make one network call for every image, and one of its guide and those of its twin where the table asks for it.

    Rows may differ in all but shape. What is asked of a device is the same for one row as for many, and nothing waits
    for it.

    Args:
        denoiser: the network; on the batch's device.
        batch: none of its images done. Left untouched.

    Returns:
        The batch one call further.
    """
    x = batch.x  # (B, C, H, W)
    numbers = np.stack([image.table.row(k) for image, k in zip(batch.images, batch.positions, strict=True)])
    has = dict(zip(COLUMNS, np.count_nonzero(numbers, axis=0).tolist(), strict=True))
    sent, column = _sent(batch, numbers, x)

    r = _predicted(denoiser, x, sent.level, column["guide"], sent.pushed)
    if has["antithetic"]:
        which = sent.twins
        opposite = 2 * _each(column["antithetic"][which]) * noises(sent.key[which], x.shape[1:]).to(x.dtype)
        twin = _predicted(denoiser, x[which] - opposite, sent.level[which], column["guide"][which], sent.pushed_twins)
        r = r.index_add(0, which, (twin - r[which]) / 2)
    x0 = denoiser.clip(r)
    x_next = _each(column["A"]) * x + _each(column["B0"]) * x0
    # Terms that no row has are left out; to a row that has not what another has, nought is added.
    if has["B1"]:
        x_next += _each(column["B1"]) * batch.x0_prev
    if has["R"]:
        x_next += _each(column["R"]) * r
    if has["D"]:
        x_next += _each(column["D"]) * noises(sent.next_key, x.shape[1:]).to(x.dtype)
    if has["weight"] or has["apart"]:
        grids = [max(1, int(grid)) for grid in numbers[:, COLUMNS.index("grid")]]
        delta = low_pass_displacement(x0, batch.target, column["weight"], grids, column["chroma"])
        delta = delta + apart_displacement(x0 + delta, batch.target, column["apart"], column["spared"])
        x_next += _each(column["shift"]) * delta
    if has["pixel"]:
        x_next += _each(column["shift"]) * pixel_displacement(r, batch.target, column["pixel"])
    return batch.advanced(x_next, x0)


def _predicted(denoiser: Denoiser, x: Tensor, level: Tensor, strength: Tensor, pushed: Tensor) -> Tensor:
    """Give r (B, C, H, W) of x, in the rows `pushed` moved from the guide's prediction by their strength."""
    r = denoiser(x, level)
    if len(pushed):
        own = r[pushed]
        delta = auto_displacement(own, denoiser.guided_by(x[pushed], level[pushed], own), strength[pushed])
        r = r.index_add(0, pushed, delta)
    return r


class _Sent(NamedTuple):
    """What is whole numbers in a tick, on the device.

    Attributes:
        level: (B,).
        key, next_key: (B,) keys of the noise in x and of the noise to come.
        pushed: rows that a guide pushes.
        twins: rows that have a twin.
        pushed_twins: which of the twins a guide pushes.
    """

    level: Tensor
    key: Tensor
    next_key: Tensor
    pushed: Tensor
    twins: Tensor
    pushed_twins: Tensor


def _sent(batch: Batch, numbers: NDArray[np.float64], like: Tensor) -> tuple[_Sent, dict[str, Tensor]]:
    """Send a tick's numbers to the device in one copy: float64 holds levels, keys of noise and indices exactly.

    Returns:
        The whole numbers, and (B,) of each column.
    """
    at = list(zip(batch.images, batch.positions, strict=True))
    guide = numbers[:, COLUMNS.index("guide")]
    twins = numbers[:, COLUMNS.index("antithetic")].nonzero()[0]
    rows: list[Sequence[int] | NDArray[np.int64]] = [
        [int(image.table.levels[k]) for image, k in at],
        [noise_key(image.seed, int(k)) for image, k in at],
        [noise_key(image.seed, int(k) + 1) for image, k in at],
        guide.nonzero()[0],
        twins,
        guide[twins].nonzero()[0],
    ]
    whole = np.zeros((len(rows), len(batch)))
    for place, row in zip(whole, rows, strict=True):
        place[: len(row)] = row
    sent = to_device(torch.from_numpy(np.concatenate([whole, numbers.T])), like.device)
    parts = (part[: len(row)] for part, row in zip(sent[: len(rows)].long(), rows, strict=True))
    return _Sent(*parts), dict(zip(COLUMNS, sent[len(rows) :].to(like.dtype), strict=True))


Tick = Callable[[Denoiser, Batch], Batch]


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
    everything = Batch.of(states, denoiser.device)
    states = list(everything)
    running = [i for i, state in enumerate(states) if not state.done]
    batch = everything if len(running) == len(states) else everything.take(running)
    while running:
        batch = tick(denoiser, batch)
        advanced = dict(zip(running, batch, strict=True))
        states = [advanced.get(i, state) for i, state in enumerate(states)]
        if any(state.done for state in advanced.values()):
            running = [i for i, state in advanced.items() if not state.done]
            batch = batch.take([row for row, state in enumerate(advanced.values()) if not state.done])
        if on_step:
            on_step(states)
    return torch.stack([state.x for state in states])


def _each(column: Tensor) -> Tensor:
    """Shape (B,) for multiplication with (B, C, H, W)."""
    return column.view(-1, 1, 1, 1)
