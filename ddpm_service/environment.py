"""What the libraries beneath torch read from the environment when a process starts."""

from __future__ import annotations

import os

_MEMORY = {
    # Memory that a network call gives back is wanted again by the next: as it is, each call's is asked of the system
    # anew, page by page. Measured on two cores, one call of 113.7M parameters at 256 px in bf16: 0.80 s so, 0.66 s.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "THP_MEM_ALLOC_ENABLE": "1",
}


def set_defaults() -> None:
    """Call before torch is imported, and before a process that imports it is started; settings of the user's own stay.

    How long OpenMP's waiting threads spin before they sleep, measured on two cores with the embedded model, five faces:
    by libgomp's default of 300,000 spins 0.65 s on an idle machine and 13 to 50 s beside other work; never spinning
    1.05 s and 2.3 s; with 5,000 spins 0.65 s and 2.3 s.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    for name, value in _MEMORY.items():
        os.environ.setdefault(name, value)
