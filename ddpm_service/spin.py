"""How long OpenMP's waiting threads spin before they sleep, for this process and what it starts."""

from __future__ import annotations

import os


def spin_briefly() -> None:
    """Call before torch is imported: libgomp reads its setting once. A setting of the user's own stays.

    Measured on two cores with the embedded model, five faces: by libgomp's default of 300,000 spins 0.65 s on an idle
    machine and 13 to 50 s beside other work; never spinning 1.05 s and 2.3 s; with 5,000 spins 0.65 s and 2.3 s.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
