"""Between host and device, in one copy each way, and without waiting for what the device is at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Bring a tensor to a device."""
    device = torch.device(device)
    if tensor.device == device or device.type == "cpu":
        return tensor.to(device)
    # From memory that may be paged out a copy would wait.
    return (tensor.pin_memory() if tensor.device.type == "cpu" else tensor).to(device, non_blocking=True)


class Parcel:
    """Tensors of one device on their way to the host, in one copy.

    Args:
        tensors: of any shapes and dtypes.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = list(tensors)
        device = self._tensors[0].device
        self._bytes: Tensor | None = None
        self._arrival: torch.cuda.Event | None = None
        if device.type != "cpu":
            packed = torch.cat([tensor.flatten().view(torch.uint8) for tensor in self._tensors])
            self._bytes = packed.to("cpu", non_blocking=True)
        if device.type == "cuda":
            self._arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrival.record(torch.cuda.current_stream(device))

    def open(self) -> list[Tensor]:
        """Wait until they are here; give them on the host."""
        if self._bytes is None:
            return self._tensors
        if self._arrival is not None:
            self._arrival.synchronize()
        sizes = [tensor.numel() * tensor.element_size() for tensor in self._tensors]
        return [
            # A copy, since numbers of several bytes must lie where they may.
            part.clone().view(tensor.dtype).view(tensor.shape)
            for part, tensor in zip(torch.split(self._bytes, sizes), self._tensors, strict=True)
        ]
