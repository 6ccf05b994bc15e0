"""The number formats that a network is run in, by torch's names."""

from __future__ import annotations

from enum import StrEnum


class Precision(StrEnum):
    """One format, or the best for this machine. Accelerate's short names are known too, as in older recipes."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"

    @classmethod
    def _missing_(cls, value: object) -> Precision | None:
        return {"fp32": cls.FLOAT32, "bf16": cls.BFLOAT16, "fp16": cls.FLOAT16}.get(str(value))
