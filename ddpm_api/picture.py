"""Pictures drawn from finished ones, which keep the mark that these are AI-generated."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, ImageOps
from PIL.Image import SupportsArrayInterface
from PIL.PngImagePlugin import PngInfo

from ddpm_api.fields import OutputFormat

ImageLike = bytes | bytearray | memoryview | str | Path | BinaryIO | Image.Image | SupportsArrayInterface
"""A picture as it may be at hand: its bytes, its path, an open file, or pixels (PIL, or an (H, W, 3) uint8 array)."""


_EXIF, _USER_COMMENT = 0x8769, 0x9286
_CHARSET = b"ASCII\0\0\0"


class MarkedImage(Image.Image):
    """A made picture, opened: its files carry its mark and parameters, and so do those of resized or cropped copies."""

    @classmethod
    def of(cls, file: bytes) -> MarkedImage:
        """Open a file that an answer brought."""
        with Image.open(io.BytesIO(file)) as opened:
            picture = opened.copy()
            picture.info["parameters"] = parameters_in(opened)
        return cls._marked(picture)

    @classmethod
    def _marked(cls, picture: Image.Image) -> MarkedImage:
        picture.__class__ = cls
        assert isinstance(picture, cls)
        return picture

    def _new(self, im: Any) -> MarkedImage:  # Pillow makes its copies by this
        return self._marked(super()._new(im))

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """Save as Pillow does, with the mark and the parameters: each file format takes what it knows."""
        xmp, text = self.info.get("xmp", b""), self.info["parameters"]
        texts, exif = PngInfo(), Image.Exif()
        if xmp:
            texts.add_itxt("XML:com.adobe.xmp", xmp.decode())
        if text:
            texts.add_text("parameters", text)
            exif.get_ifd(_EXIF)[_USER_COMMENT] = _CHARSET + text.encode()
        super().save(fp, format, **{"pnginfo": texts, "exif": exif, "xmp": xmp} | params)


def parameters_in(picture: Image.Image) -> str:
    """Give the parameters inside an opened picture that was made here, as JSON; nothing where there are none."""
    comment = picture.getexif().get_ifd(_EXIF).get(_USER_COMMENT)
    said = comment[len(_CHARSET) :].decode(errors="replace") if isinstance(comment, bytes) else ""
    return str(picture.info.get("parameters") or said)


def file_of(image: ImageLike) -> bytes:
    """Give the bytes of a picture, however it is at hand."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | Path):
        return Path(image).read_bytes()
    if isinstance(image, Image.Image) or hasattr(image, "__array_interface__"):
        file = io.BytesIO()
        # A phone's picture that Pillow has opened still lies on its side.
        (ImageOps.exif_transpose(image) if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, "PNG")
        return file.getvalue()
    return image.read()


def contact_sheet(files: Sequence[bytes], output_format: OutputFormat) -> bytes:
    """The pictures side by side in rows, as near to a square as they go; unequal sizes are centred in their cell.

    The sheet carries the mark (XMP) of the first picture that has one and, in the same file format, its parameters.

    Raises:
        ValueError: no picture.
    """
    if not files:
        raise ValueError("a contact sheet needs at least one picture")
    pictures = [Image.open(io.BytesIO(file)) for file in files]
    columns = math.ceil(math.sqrt(len(pictures)))
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    sheet = Image.new("RGB", (columns * width, math.ceil(len(pictures) / columns) * height), "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        corner = (column * width + (width - picture.width) // 2, row * height + (height - picture.height) // 2)
        sheet.paste(picture.convert("RGB"), corner)
    marked = next((picture for picture in pictures if "xmp" in picture.info), pictures[0])
    return save_marked(sheet, output_format, marked)


def save_marked(drawn: Image.Image, output_format: OutputFormat, marked: Image.Image) -> bytes:
    """Encode what was drawn from an opened picture with that one's mark and, in the same file format, its parameters.

    A PNG also tells that one's size, as `true_size`.
    """
    file = io.BytesIO()
    xmp: bytes = marked.info.get("xmp", b"")
    if output_format is OutputFormat.PNG:
        texts = PngInfo()
        if xmp:
            texts.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8"))
        if "parameters" in marked.info:
            texts.add_text("parameters", marked.info["parameters"])
        texts.add_text("true_size", f"{marked.width}x{marked.height}")
        drawn.save(file, "PNG", pnginfo=texts)
    else:
        drawn.save(file, output_format.value, quality=95, xmp=xmp, exif=marked.info.get("exif", b""))
    return file.getvalue()
