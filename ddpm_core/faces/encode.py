"""Made pictures as files that say they are made by a model, and with which settings."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ddpm_core.errors import InvalidInput

CONTENT_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

_USER_COMMENT = 0x9286
_EXIF_IFD = 0x8769
_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
    f"<Iptc4xmpExt:DigitalSourceType>{escape(DIGITAL_SOURCE_TYPE)}</Iptc4xmpExt:DigitalSourceType>"
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
).encode()


class MadeImage(Image.Image):
    """A made RGB picture. Its files carry the mark and its settings, and so do those of its resized or cropped copies.

    Attributes:
        settings: what it was made with; JSON values.
    """

    settings: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], settings: Mapping[str, Any] | None = None) -> MadeImage:
        """Give (H, W, 3) uint8 RGB as a made picture."""
        return cls._made(Image.fromarray(pixels), dict(settings or {}))

    @classmethod
    def _made(cls, picture: Image.Image, settings: Mapping[str, Any]) -> MadeImage:
        picture.__class__ = cls
        assert isinstance(picture, cls)
        picture.settings = settings
        return picture

    def _new(self, im: Any) -> MadeImage:  # Pillow makes its copies by this
        return self._made(super()._new(im), self.settings)

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """Save as Pillow does, with the mark (XMP) and the settings: in PNG a text, in JPEG and WebP EXIF's comment."""
        super().save(fp, format, **self._inside() | params)

    def _inside(self) -> dict[str, Any]:
        """Give what goes into a file, for whichever format it will have: each takes what it knows."""
        text = json.dumps(dict(self.settings))  # ASCII
        info, exif = PngInfo(), Image.Exif()
        info.add_itxt("XML:com.adobe.xmp", _XMP.decode())
        info.add_text("parameters", text)
        exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = b"ASCII\0\0\0" + text.encode()
        return {"pnginfo": info, "exif": exif, "xmp": _XMP}


def encode(
    pixels: NDArray[np.uint8],
    output_format: str = "png",
    parameters: Mapping[str, str | int | float | None] | None = None,
) -> bytes:
    """Encode (H, W, 3) uint8 RGB with the AI-generated mark (XMP `DigitalSourceType`) and the parameters inside.

    The parameters are JSON: in PNG the text `parameters`, in JPEG and WebP the EXIF `UserComment`. A file holds
    nothing but the pixels, the mark and the parameters.

    Raises:
        InvalidInput: unknown_value, field `output_format`: not `png`, `jpeg` or `webp`.
    """
    if output_format not in CONTENT_TYPES:
        raise InvalidInput(
            "unknown_value",
            f"The output format {output_format!r} is not known.",
            field="output_format",
            given=output_format,
            allowed=", ".join(CONTENT_TYPES),
        )
    file = io.BytesIO()
    MadeImage.of(pixels, parameters).save(file, output_format.upper(), quality=95)
    return file.getvalue()
