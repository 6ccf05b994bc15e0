"""What a device's errors mean."""

from __future__ import annotations

import pytest
import torch

from ddpm_core.device import is_lost, out_of_memory

NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]
LOST = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    torch.AcceleratorError("CUDA error: device-side assert triggered"),
    torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(…)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
]
OTHERS = [
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    ValueError("out of memory"),
    FloatingPointError("the image is no longer finite"),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=str)
def test_memory_that_has_run_out_is_known_in_all_words(error: Exception) -> None:
    assert out_of_memory(error)
    assert not is_lost(error)


@pytest.mark.parametrize("error", LOST, ids=str)
def test_an_error_that_stays_is_a_lost_device(error: Exception) -> None:
    assert is_lost(error)
    assert not out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_any_other_error_is_neither(error: Exception) -> None:
    assert not is_lost(error)
    assert not out_of_memory(error)
