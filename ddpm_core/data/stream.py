"""The endless order of training images: any part of it can be had from its position alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


class Stream:
    """Images in an order that is shuffled anew each epoch, by seed and position; nothing is remembered between calls.

    Args:
        pixels: (N, H, W, C) uint8, all images.
        indices: which of them are streamed.
        device: where batches go; the images stay there too when they take at most half of a GPU's free memory.
        seed: of the order.
        flip: mirror every other image at random.
        crop: smallest share of the side that a random crop keeps.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        indices: Sequence[int],
        device: torch.device | str = "cpu",
        *,
        seed: int = 0,
        flip: bool = False,
        crop: float = 1.0,
    ) -> None:
        self.pixels, self.indices = pixels, np.asarray(indices)
        self.device, self.seed, self.flip, self.crop = torch.device(device), seed, flip, crop
        self._resident: Tensor | None = None
        if self.device.type == "cuda" and pixels.nbytes < torch.cuda.mem_get_info(self.device)[0] // 2:
            self._resident = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)

    def __len__(self) -> int:
        return len(self.indices)

    def order(self, position: int, count: int) -> NDArray[np.int64]:
        """Give the indices of `count` images from a position on; an epoch runs on into the next."""
        at = np.arange(position, position + count)
        epochs, within = at // len(self), at % len(self)
        return np.array([self._epoch(int(e))[w] for e, w in zip(epochs, within, strict=True)], dtype=np.int64)

    def batch(self, position: int, count: int) -> Tensor:
        """Give (B, C, H, W) float32 in [−1, 1]; flips and crops come from torch's global generator."""
        x = self.images(self.order(position, count))
        if self.flip:
            mirrored = torch.rand(count, 1, 1, 1, device=x.device) < 0.5
            x = torch.where(mirrored, x.flip(-1), x)
        return _random_crop(x, self.crop) if self.crop < 1 else x

    def images(self, indices: NDArray[np.int64]) -> Tensor:
        """Give chosen images as (B, C, H, W) float32 in [−1, 1], without augmentation."""
        if self._resident is not None:
            chosen = self._resident[torch.from_numpy(indices).to(self.device)]
        else:
            chosen = torch.from_numpy(self.pixels[indices]).to(self.device)
        return chosen.permute(0, 3, 1, 2).float() / 127.5 - 1

    @lru_cache(maxsize=2)  # noqa: B019  # a stream lives as long as its run
    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng((self.seed, epoch)).permutation(self.indices)


def _random_crop(x: Tensor, smallest: float) -> Tensor:
    """Cut a random square of `smallest`..1 of the side out of each image and scale it back."""
    count, device = len(x), x.device
    scale = smallest + (1 - smallest) * torch.rand(count, device=device)
    shift = (torch.rand(count, 2, device=device) * 2 - 1) * (1 - scale[:, None])
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
