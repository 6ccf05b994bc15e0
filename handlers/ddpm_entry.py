"""Where TorchServe enters an archive: the archive's own code wins, and a missing package is named.

It lies at the archive's root, beside the packages `handlers`, `ddpm_core` and `ddpm_api`, so that an archive runs
without this repository, and beside other versions whose code differs.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

_ROOT = Path(__file__).resolve().parent
# The archive's own code must come before PYTHONPATH and before an installed copy.
sys.path.insert(0, str(_ROOT))

_needed = [
    line.split("#") for line in (_ROOT / "requirements.txt").read_text().splitlines() if line[:1] not in ("", "#")
]
_missing = [requirement.strip() for requirement, module in _needed if find_spec(module.strip()) is None]
# Never an ImportError: TorchServe would take it for a wrong handler name, try its own handlers and hide the cause.
if _missing:
    raise RuntimeError(
        f"this archive needs packages that are not installed: pip install {' '.join(map(repr, _missing))}"
    )
try:
    handle = import_module("handlers.ddpm_handler").handle
except ImportError as error:
    raise RuntimeError(f"a package of this archive cannot be imported: {error}") from error
