"""What a device says when it fails: memory has run out, or the device is lost to this process."""

from __future__ import annotations

import torch

_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED
    "allocation_failed",  # CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED, …_HOST_ALLOCATION_FAILED
)
_LOST = ("cublas_status_execution_failed", "cudnn_status_execution_failed")


def out_of_memory(error: Exception) -> bool:
    """Tell whether memory has run out, on a device or on the host."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)
    )


def is_lost(error: Exception) -> bool:
    """Tell whether the device fails every later call of this process, so that only a new one can use it again.

    An illegal access, a failed assertion and an error of the hardware are such.
    """
    if out_of_memory(error):
        return False
    words = str(error).lower()
    return isinstance(error, torch.AcceleratorError) or (
        isinstance(error, RuntimeError) and any(lost in words for lost in _LOST)
    )
