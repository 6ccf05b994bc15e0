"""Pictures in and out: decode an upload, find and align its face, encode what was made."""

from ddpm_core.faces.align import Target, align
from ddpm_core.faces.decode import Picture, decode
from ddpm_core.faces.encode import CONTENT_TYPES, encode
from ddpm_core.faces.find import Face, FaceFinder

__all__ = ["CONTENT_TYPES", "Face", "FaceFinder", "Picture", "Target", "align", "decode", "encode"]
