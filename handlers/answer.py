"""One request's answer under way: what the engine reports becomes events, and these the bytes to send."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ddpm_api import (
    EndEvent,
    Error,
    ErrorEvent,
    Event,
    FacesEvent,
    FoundFace,
    ImageEvent,
    Notice,
    PreviewEvent,
    ProgressEvent,
    QueuedEvent,
    Rendering,
    StartedEvent,
    Target,
    Timing,
    WarningEvent,
)
from ddpm_core import events
from ddpm_core.faces import CONTENT_TYPES, encode
from ddpm_core.faces import Target as Aim

# Seconds. Heartbeats show the front door that the worker lives, and has the request, while that waits.
HEARTBEAT = 2.0


@dataclass(frozen=True)
class About:
    """What an answer is about.

    Attributes:
        id: the request's.
        model: who answers.
        version: who answers.
        parameters: as used, defaults filled in.
        target: what was made of the selfie.
        warnings: told before the work begins.
        rows: images that are made, also those that are not kept.
        calls: network calls of each image.
    """

    id: str
    model: str
    version: str
    parameters: dict[str, Any] = field(default_factory=dict)
    target: Target | None = None
    warnings: tuple[Notice, ...] = ()
    rows: int = 0
    calls: int = 0


class Answer:
    """The bytes of one answer, gathered from call to call. Holds nothing of the selfie, unless it is to be given back.

    Args:
        rendering: how the answer is given.
        about: what it is about.
        is_whole: it must be complete in its first handler call.
        progress: whether it tells of each step.
        may_come_again: another worker may have begun it, so that a plain response may not end it.

    Attributes:
        under_way: bytes that are being made beside the step loop; what comes meanwhile waits for them.
    """

    def __init__(
        self,
        rendering: Rendering,
        about: About,
        *,
        is_whole: bool,
        progress: bool = True,
        may_come_again: bool = False,
    ) -> None:
        self.rendering = rendering
        self.about = about
        self.is_whole = is_whole
        self.progress = progress
        self.may_come_again = may_come_again
        self.is_first = True  # no call has been answered yet
        self.started = False
        self.under_way: Future[bytes] | None = None
        self._described = False
        self._taken: list[events.Event] = []
        self._chunk = bytearray()
        self._last_sent = time.monotonic()

    @property
    def done(self) -> bool:
        """Whether all of its bytes are here."""
        return self.under_way is None and (self._described or self.rendering.done)

    def take(self, event: events.Event) -> None:
        """Take what the engine reports; `write` makes bytes of it."""
        self.started = self.started or isinstance(event, events.Started)
        self._taken.append(event)

    def write(self, beside: Executor | None) -> None:
        """Make bytes of what was taken, in its order.

        Args:
            beside: encodes pictures while the caller goes on; None has the caller do it.

        Raises:
            Exception: something could not be encoded.
        """
        if self.under_way is not None and self.under_way.done():
            self._join()
        if not self._taken or self.under_way is not None:
            return
        taken, self._taken = self._taken, []
        if beside is not None and any(isinstance(event, events.Image | events.Preview) for event in taken):
            self.under_way = beside.submit(self._bytes_of, taken)
        else:
            self._chunk += self._bytes_of(taken)

    def tell_faces(self, seconds: float) -> None:
        """Answer with the faces found, and nothing else."""
        about = self.about
        assert about.target is not None
        faces = FacesEvent(id=about.id, model=about.model, version=about.version, target=about.target)
        self._feed(*self._warnings(), faces, _end(0.0, seconds, 0))

    def describe(self, description: Mapping[str, Any]) -> None:
        """Answer with a document of its own."""
        self._chunk += json.dumps(description).encode()
        self._described = True

    def fail(self, error: Error) -> None:
        """End the answer with an error; what is complete stays so."""
        self._taken = []
        if self.under_way is not None:
            wait([self.under_way])
            with suppress(Exception):  # it fails by this error already
                self._join()
        if not self.done:
            self._feed(ErrorEvent(error=error))

    def collect(self, now: float) -> bytes:
        """Give the bytes to send now; a stream that has been silent for long shows that it is alive."""
        chunk, self._chunk = bytes(self._chunk), bytearray()
        if self.is_first or chunk:
            self._last_sent = now
            self.is_first = False
            return chunk
        return self.wait(now)

    def wait(self, now: float) -> bytes:
        """Give the bytes to send now while there is nothing to tell; a stream that has begun cannot be refused."""
        if self.under_way is not None or now - self._last_sent < HEARTBEAT:
            return b""
        self._last_sent = now
        heartbeat = self.rendering.begin()
        self.is_first = self.is_first and not heartbeat
        return heartbeat

    @property
    def criterion(self) -> bool | None:
        """What TorchServe is told of the part that is sent next: it is the last one or not, or (None) all there is."""
        return None if self.is_first and self.done else self.done

    def _join(self) -> None:
        """Take the bytes that were made beside."""
        assert self.under_way is not None
        made, self.under_way = self.under_way, None
        self._chunk += made.result()

    def _feed(self, *told: Event) -> None:
        self._chunk += b"".join(self.rendering.feed(event) for event in told)

    def _bytes_of(self, taken: Iterable[events.Event]) -> bytes:
        """Make bytes; nothing else may touch the rendering meanwhile."""
        return b"".join(self.rendering.feed(told) for event in taken for told in self._told(event))

    def _told(self, event: events.Event) -> Iterator[Event]:
        """Give what a client is told of an event."""
        match event:
            case events.Queued():
                yield QueuedEvent(id=self.about.id, position=event.position)
            case events.Started():
                yield from self._warnings()
                yield self._begun()
            case events.Progress():
                if self.progress:
                    yield ProgressEvent(step=event.step, total_steps=event.total_steps, eta_seconds=event.eta_seconds)
            case events.Preview():
                file = _base64(encode(event.pixels, "jpeg"))
                yield PreviewEvent(
                    step=event.step, index=event.index, content_type=CONTENT_TYPES["jpeg"], b64_json=file
                )
            case events.Image():
                yield self._image(event)
            case events.Failed():
                yield ErrorEvent(error=Error(code=event.code, message=event.message))
            case events.End():
                yield _end(event.queue_seconds, event.seconds, self.about.calls)

    def _begun(self) -> StartedEvent:
        about = self.about
        return StartedEvent(
            id=about.id,
            model=about.model,
            version=about.version,
            seed=about.parameters["seed"],
            parameters=about.parameters,
            target=about.target,
        )

    def _image(self, event: events.Image) -> ImageEvent:
        output_format = self.rendering.output_format
        inside = self.about.parameters | {"seed": event.seed, "model": self.about.model, "version": self.about.version}
        return ImageEvent(
            index=event.index,
            seed=event.seed,
            resemblance_score=None if event.resemblance_score is None else round(event.resemblance_score, 3),
            width=event.pixels.shape[1],
            height=event.pixels.shape[0],
            content_type=output_format.content_type,
            b64_json=_base64(encode(event.pixels, output_format.value, inside)),
        )

    def _warnings(self) -> Sequence[WarningEvent]:
        return [WarningEvent(code=notice.code, message=notice.message) for notice in self.about.warnings]


def _end(queue_seconds: float, seconds: float, calls: int) -> EndEvent:
    return EndEvent(timing=Timing(queue_seconds=round(queue_seconds, 4), seconds=round(seconds, 4), calls=calls))


def describe_target(aim: Aim, *, with_picture: bool) -> Target:
    """Say what was made of the selfie; its picture only on request, and without the mark of a generated one."""
    picture = None
    if with_picture:
        file = io.BytesIO()
        Image.fromarray(aim.pixels).save(file, "PNG")
        picture = _base64(file.getvalue())
    faces = [FoundFace(box=face.box, score=face.score) for face in aim.faces]
    return Target(faces=faces, face=aim.face, box=aim.box, b64_json=picture)


def _base64(file: bytes) -> str:
    return base64.b64encode(file).decode("ascii")
