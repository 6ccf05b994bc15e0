"""What the libraries beneath torch read from the environment when a process starts."""

from __future__ import annotations

import os

_MEMORY = {
    # Memory that a network call gives back is kept for the next one. By default each call asks the system for it
    # anew, page by page. One call of 113.7M parameters at 256 px in bf16, two cores: 0.80 s by default, 0.66 s so.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "THP_MEM_ALLOC_ENABLE": "1",
}


def set_defaults() -> None:
    """Set how OpenMP's threads wait and how memory is kept, where the user has not set it.

    Call it before torch is imported, and before a process that imports torch is started.

    Waiting threads spin 5,000 times before they sleep. Five faces of the embedded model on two cores take 0.65 s on an
    idle machine and 2.3 s beside other work. With libgomp's default of 300,000 spins it is 0.65 s and 13 to 50 s,
    without spinning 1.05 s and 2.3 s.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    for name, value in _MEMORY.items():
        os.environ.setdefault(name, value)
