"""What leaves the device after a tick, in one copy: which images are finite, pictures, and how good they are."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm_core.pixels import to_levels
from ddpm_core.ranking import resemblance
from ddpm_core.sampling import Batch
from ddpm_core.transfer import Parcel


@dataclass(frozen=True, eq=False)
class Shown:
    """What has come to the host.

    Attributes:
        finite: (B,) whether each image of the batch is finite.
        pictures: (P, H, W, 3).
        resemblance: (P,) of each to its target; without meaning where there is none.
        demerit: (P,) what they are ranked by, lower is better; nought where they are not.
    """

    finite: NDArray[np.bool_]
    pictures: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0, 0, 3), np.uint8))
    resemblance: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    demerit: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))


class Leaving:
    """The pictures of a tick, gathered and sent.

    Attributes:
        batch: after the tick.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._pictures: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._demerits: list[Tensor] = []

    def add(self, part: Batch, pictures: Tensor, demerit: Tensor | None = None) -> slice:
        """Add pictures (K, C, H, W) of a part of the batch, and what they are ranked by (K,); give where they are."""
        first = sum(map(len, self._pictures))
        self._pictures.append(pictures)
        self._targets.append(part.target)
        self._demerits.append(pictures.new_zeros(len(pictures)) if demerit is None else demerit)
        return slice(first, first + len(pictures))

    @torch.inference_mode()
    def send(self) -> Parcel:
        """Send them; `shown` reads them."""
        finite = self.batch.x.isfinite().flatten(1).all(1)
        if not self._pictures:
            return Parcel([finite])
        x = torch.cat(self._pictures)
        near = resemblance(x, torch.cat(self._targets))
        return Parcel([finite, to_levels(x), near, torch.cat(self._demerits)])


def shown(parcel: Parcel) -> Shown:
    """Wait for what was sent, and read it."""
    return Shown(*(tensor.numpy() for tensor in parcel.open()))
