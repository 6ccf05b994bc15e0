"""The pieces that events and the result share. JSON names are the attribute names."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from ddpm_api.picture import MarkedImage


class Shape(BaseModel):
    """Base of all that is sent: immutable, finite numbers only; a reader skips fields it does not know."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Notice(Shape):
    """A warning: something was ignored, changed, or not as hoped."""

    code: str
    message: str


class Timing(Shape):
    """How long it took, in seconds, and the network calls made for each image."""

    queue_seconds: float
    seconds: float
    calls: int


class FoundFace(Shape):
    """A face: its box (left, top, right, bottom) in pixels of the upright picture, and the finder's score."""

    box: tuple[float, float, float, float]
    score: float


class Target(Shape):
    """What was made of the selfie: the faces found, which one was taken, and the box that was cut out.

    `b64_json` is the aligned target as a PNG, only with `return_target`.
    """

    faces: list[FoundFace]
    face: int | None
    box: tuple[float, float, float, float]
    b64_json: str | None = None

    @model_serializer(mode="wrap")
    def _target_only_if_asked(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        if self.b64_json is None:
            del fields["b64_json"]
        return fields


class GeneratedImage(Shape):
    """One finished picture; `b64_json` is the file's bytes.

    `resemblance_score` is 0..1, 1 = the selfie itself in its coarse structure; None without a selfie to follow.
    """

    index: int
    seed: int
    resemblance_score: float | None = None
    width: int
    height: int
    content_type: str
    b64_json: str

    @property
    def data(self) -> bytes:
        """The file's bytes."""
        return base64.b64decode(self.b64_json)

    @property
    def image(self) -> MarkedImage:
        """The picture; whatever is saved of it keeps its mark and settings."""
        return MarkedImage.of(self.data)

    def save(self, path: str | Path) -> None:
        """Write the file as it came: with its mark and settings, in its own format whatever the path's ending."""
        Path(path).write_bytes(self.data)
