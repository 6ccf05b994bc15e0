"""One class of TorchServe's Java, corrected on the way."""

from __future__ import annotations

import hashlib
import zipfile
from importlib.util import find_spec
from pathlib import Path

# TorchServe 0.12 puts each DESCRIBE request back to the head of its queue, where it stays: nothing behind it is served
# any more (`Model.pollInferJob`). It needs no treatment of its own there, so no command shall equal it: where the class
# reads the constant DESCRIBE to compare with (getstatic), it gets null.
_CLASS = "org/pytorch/serve/wlm/Model.class"
_FAULTY = "7c5523f1fe77fe79aa32665469e17725e70518692abcf4987989ef72f10d4cff"
_READ_DESCRIBE, _NULL = b"\xb2\x02\x0f", b"\x01\x00\x00"


def correct(folder: Path) -> None:
    """Write the corrected class into the folder that TorchServe is started in: Java looks there first.

    That of another TorchServe is left as it is.
    """
    spec = find_spec("ts")
    assert spec is not None
    assert spec.submodule_search_locations
    jar = Path(next(iter(spec.submodule_search_locations))) / "frontend" / "model-server.jar"
    with zipfile.ZipFile(jar) as archive:
        code = archive.read(_CLASS)
    if hashlib.sha256(code).hexdigest() == _FAULTY:
        file = folder / _CLASS
        file.parent.mkdir(parents=True)
        file.write_bytes(code.replace(_READ_DESCRIBE, _NULL))
