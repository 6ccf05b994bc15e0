"""Pictures in and out: decode an upload, find and align its face, encode what was made."""

from ddpm_core.faces.align import Target, align
from ddpm_core.faces.decode import Picture, decode
from ddpm_core.faces.encode import CONTENT_TYPES, MadeImage, encode
from ddpm_core.faces.find import Face, FaceFinder
from ddpm_core.faces.pool import Pool, pool_for

__all__ = [
    "CONTENT_TYPES",
    "Face",
    "FaceFinder",
    "MadeImage",
    "Picture",
    "Pool",
    "Target",
    "align",
    "decode",
    "encode",
    "pool_for",
]
