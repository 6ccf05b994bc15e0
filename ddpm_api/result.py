"""The whole answer in one piece, and how events add up to it."""

from __future__ import annotations

import time
from typing import Any

from ddpm_api.errors import ApiError, Error
from ddpm_api.events import EndEvent, ErrorEvent, Event, FacesEvent, ImageEvent, StartedEvent, WarningEvent
from ddpm_api.shapes import GeneratedImage, Notice, Shape, Target, Timing


class Result(Shape):
    """The JSON answer; `created` is in Unix seconds."""

    id: str
    created: int
    model: str
    version: str
    images: list[GeneratedImage]
    target: Target | None
    parameters: dict[str, Any]
    warnings: list[Notice]
    timing: Timing

    def to_json(self) -> bytes:
        """The answer's bytes, content type `application/json`."""
        return self.model_dump_json().encode()


class ResultBuilder:
    """A result in the making: the events of one request go in, in their order."""

    def __init__(self) -> None:
        self.error: Error | None = None
        self._begun: StartedEvent | FacesEvent | None = None
        self._created = int(time.time())
        self._images: list[GeneratedImage] = []
        self._warnings: list[Notice] = []
        self._timing: Timing | None = None

    @property
    def done(self) -> bool:
        """Whether `end` or `error` came."""
        return self.error is not None or self._timing is not None

    def feed(self, event: Event) -> None:
        """Take the next event; what no result holds (queue, progress, previews) is passed over."""
        match event:
            case StartedEvent() | FacesEvent():
                self._begun = event
            case WarningEvent():
                self._warnings.append(Notice(code=event.code, message=event.message))
            case ImageEvent():
                self._images.append(GeneratedImage.model_validate(event.model_dump(exclude={"event"})))
            case ErrorEvent():
                self.error = event.error
            case EndEvent():
                self._timing = event.timing

    def result(self) -> Result:
        """The result, images in the order of their index.

        Raises:
            ApiError: the request failed, or its events stopped before the end (code `unfinished`).
        """
        if self.error is not None:
            raise ApiError(self.error)
        if self._begun is None or self._timing is None:
            raise ApiError(Error(code="unfinished", message="The answer broke off before its end."))
        return Result(
            id=self._begun.id,
            created=self._created,
            model=self._begun.model,
            version=self._begun.version,
            images=sorted(self._images, key=lambda image: image.index),
            target=self._begun.target,
            parameters=self._begun.parameters if isinstance(self._begun, StartedEvent) else {},
            warnings=self._warnings,
            timing=self._timing,
        )
