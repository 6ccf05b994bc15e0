"""Made pictures as files that say they are made by a model, and with which settings."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
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
    text = json.dumps(dict(parameters or {}))  # ASCII
    image, file = Image.fromarray(pixels), io.BytesIO()
    if output_format == "png":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", _XMP.decode())
        info.add_text("parameters", text)
        image.save(file, "PNG", pnginfo=info)
    else:
        exif = Image.Exif()
        exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = b"ASCII\0\0\0" + text.encode()
        image.save(file, output_format.upper(), quality=95, exif=exif, xmp=_XMP)
    return file.getvalue()
