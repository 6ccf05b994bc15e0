"""Images under way: each a state, and many of them as one structure of arrays on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm_core.sampling.table import StepTable
from ddpm_core.transfer import to_device


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


class _Image(NamedTuple):
    """What stays the same of an image under way."""

    table: StepTable
    seed: int
    has_target: bool


@dataclass(frozen=True, eq=False)
class Batch:
    """Images under way, stacked; immutable as their states are. Indexing and iterating give the states.

    Attributes:
        images: of each row, its table, its seed, and whether it has a target.
        positions: (B,) network calls made so far.
        x: (B, C, H, W), as in `SampleState`.
        x0_prev: (B, C, H, W); nought before the first call, where no table asks for it.
        target: (B, C, H, W); nought where there is none.
    """

    images: tuple[_Image, ...]
    positions: NDArray[np.int64]
    x: Tensor
    x0_prev: Tensor
    target: Tensor

    @staticmethod
    def of(states: Sequence[SampleState], device: torch.device | str = "cpu") -> Batch:
        """Stack states, x of equal shape (C, H, W), on a device."""

        def stacked(tensors: Sequence[Tensor | None]) -> Tensor:
            zero = torch.zeros_like(states[0].x)
            return to_device(torch.stack([zero if tensor is None else tensor for tensor in tensors]), device)

        return Batch(
            tuple(_Image(state.table, state.seed, state.target is not None) for state in states),
            np.array([state.position for state in states]),
            stacked([state.x for state in states]),
            stacked([state.x0_prev for state in states]),
            stacked([state.target for state in states]),
        )

    @staticmethod
    def join(parts: Sequence[Batch]) -> Batch:
        """Give the rows of one batch after the other; one batch alone stays itself."""
        if len(parts) == 1:
            return parts[0]
        return Batch(
            tuple(image for part in parts for image in part.images),
            np.concatenate([part.positions for part in parts]),
            torch.cat([part.x for part in parts]),
            torch.cat([part.x0_prev for part in parts]),
            torch.cat([part.target for part in parts]),
        )

    def part(self, first: int, stop: int) -> Batch:
        """Give the rows from `first` until before `stop`, in the same memory."""
        rows = slice(first, stop)
        return Batch(self.images[rows], self.positions[rows], self.x[rows], self.x0_prev[rows], self.target[rows])

    def take(self, rows: Sequence[int]) -> Batch:
        """Give these rows, in memory of their own."""
        chosen = np.array(rows, np.int64)
        index = to_device(torch.from_numpy(chosen), self.x.device)
        tensors = (tensor.index_select(0, index) for tensor in (self.x, self.x0_prev, self.target))
        return Batch(tuple(self.images[row] for row in rows), self.positions[chosen], *tensors)

    def advanced(self, x: Tensor, x0: Tensor) -> Batch:
        """Give the rows one call further."""
        return replace(self, positions=self.positions + 1, x=x, x0_prev=x0)

    def __len__(self) -> int:
        """Give the number of rows."""
        return len(self.images)

    def __iter__(self) -> Iterator[SampleState]:
        """Give the rows as states."""
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> SampleState:
        """Give one row as a state, in the same memory."""
        image, position = self.images[row], int(self.positions[row])
        x0_prev = self.x0_prev[row] if position else None
        target = self.target[row] if image.has_target else None
        return SampleState(image.table, image.seed, self.x[row], position, x0_prev, target)
