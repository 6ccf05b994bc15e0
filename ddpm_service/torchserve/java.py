"""Two classes of TorchServe's Java, corrected on the way."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class _Correction:
    """What is put in place of what in a class: `file` in TorchServe's jar, known by its SHA-256."""

    file: str
    faulty: str
    edits: Sequence[tuple[bytes, bytes]]

    def of(self, code: bytes) -> bytes | None:
        """Give the corrected class, None where it is that of another TorchServe."""
        if hashlib.sha256(code).hexdigest() != self.faulty:
            return None
        for old, new in self.edits:
            code = code.replace(old, new)
        return code


_TO_COMPARE_WITH_DESCRIBE = _Correction(
    # TorchServe 0.12 puts each DESCRIBE request back to the head of its queue, where it stays: nothing behind it is
    # served any more (`Model.pollInferJob`). It needs no treatment of its own there, so no command shall equal it:
    # where the class reads the constant DESCRIBE to compare with (getstatic), it gets null.
    "org/pytorch/serve/wlm/Model.class",
    "7c5523f1fe77fe79aa32665469e17725e70518692abcf4987989ef72f10d4cff",
    [(b"\xb2\x02\x0f", b"\x01\x00\x00")],
)
_CONSTANTS = 0xC4
_NAME = b"java/lang/IndexOutOfBoundsException"
_FORM_WITHOUT_BOUNDARY = _Correction(
    # A form whose boundary is empty makes Netty look for its first character. TorchServe 0.12 answers 500, as to a
    # fault of its own. Here the exception goes where BadRequestException goes: one more row in the table of
    # exceptions of `channelRead0` (from 0, to 73, handler 99), and its class in the pool of constants.
    "org/pytorch/serve/http/HttpRequestHandler.class",
    "4284484a3cbe3c227cec2578dcb44b9ae9c4f1b8cffbccec26e36490803cea31",
    [
        (b"\xca\xfe\xba\xbe\0\0\0\x34\0\xc4", b"\xca\xfe\xba\xbe\0\0\0\x34\0\xc6"),
        (
            b"\0\x21\0\x08\0\x02\0\0\0\x02",  # behind the pool: access, this class, its parent, its fields
            b"\x01"
            + len(_NAME).to_bytes(2)
            + _NAME
            + b"\x07"
            + _CONSTANTS.to_bytes(2)
            + b"\0\x21\0\x08\0\x02\0\0\0\x02",
        ),
        (b"\0\0\x03\x19\0\x05\0\x06\0\0\x01\x19", b"\0\0\x03\x21\0\x05\0\x06\0\0\x01\x19"),  # 8 bytes longer
        (b"\0\x0e" + b"\0\0\0\x49\0\x4c\0\x44", b"\0\x0f" + b"\0\0\0\x49\0\x63\0\xc5" + b"\0\0\0\x49\0\x4c\0\x44"),
    ],
)


def correct(folder: Path) -> None:
    """Write the corrected classes into the folder that TorchServe is started in: Java looks there first.

    Those of another TorchServe are left as they are.
    """
    spec = find_spec("ts")
    assert spec is not None
    assert spec.submodule_search_locations
    jar = Path(next(iter(spec.submodule_search_locations))) / "frontend" / "model-server.jar"
    with zipfile.ZipFile(jar) as archive:
        for correction in (_TO_COMPARE_WITH_DESCRIBE, _FORM_WITHOUT_BOUNDARY):
            code = correction.of(archive.read(correction.file))
            if code is not None:
                file = folder / correction.file
                file.parent.mkdir(parents=True)
                file.write_bytes(code)
