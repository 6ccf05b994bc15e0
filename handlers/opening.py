"""Requests whose selfies are being decoded by helper processes; those that guide are judged in one network call."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace

from ddpm_api import Mode
from ddpm_core.faces import Target
from ddpm_core.gate import Judgement
from ddpm_core.pipeline import Pipeline
from handlers.answer import Answer
from handlers.intake import Arrival

UNJUDGED = Judgement()


@dataclass(frozen=True)
class Opening:
    """A request whose selfie is being decoded.

    Args:
        arrival: the request, without its picture.
        answer: nothing of it is known yet.
        target: what the selfie is going to be.
        begin: when it came; s, monotonic.
    """

    arrival: Arrival
    answer: Answer
    target: Future[Target]
    begin: float

    @property
    def guides(self) -> bool:
        """Whether the selfie guides, and is judged for it."""
        return not self.arrival.request.detect_only and self.arrival.request.mode is not Mode.NONE


class Openings(Mapping[str, Opening]):
    """The requests that are not answered yet, by their keys.

    Args:
        pipeline: its pool decodes, its network judges.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._waiting: dict[str, Opening] = {}

    def __len__(self) -> int:
        """Give their number."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[str]:
        """Go over their keys, as they are now."""
        return iter(tuple(self._waiting))

    def __getitem__(self, key: str) -> Opening:
        """Give one of them."""
        return self._waiting[key]

    @property
    def targets(self) -> list[Future[Target]]:
        """What is waited for."""
        return [each.target for each in self.values()]

    def begin(self, key: str, arrival: Arrival, answer: Answer) -> None:
        """Have a request's selfie decoded.

        Raises:
            InvalidInput, Busy: as the pool has it.
        """
        request = arrival.request
        target = self._pipeline.pool.aim(
            request.image or b"",
            self._pipeline.bundle.manifest.image_size,
            align=str(request.align),
            face=request.face,
            caller=arrival.caller,
        )
        arrival = replace(arrival, request=request.model_copy(update={"image": b""}))  # the pool has it
        self._waiting[key] = Opening(arrival, answer, target, time.monotonic())

    def retain(self, keys: Collection[str]) -> None:
        """Give up those that are not among `keys`."""
        for key in self.keys() - set(keys):
            self.give_up(key)

    def give_up(self, key: str) -> Opening:
        """Wait for this one no longer."""
        each = self._waiting.pop(key)
        each.target.cancel()
        return each

    def opened(self, most_rows: int) -> dict[str, tuple[Opening, Judgement | Exception]]:
        """Give those whose selfies are decoded, or cannot be, with what the network says of them or why it cannot.

        Args:
            most_rows: images in one network call.
        """
        ready = {key: self._waiting.pop(key) for key in self if self._waiting[key].target.done()}
        judged = {
            key: each.target.result() for key, each in ready.items() if each.guides and each.target.exception() is None
        }
        found: dict[str, Judgement | Exception]
        try:
            judgements = self._pipeline.judge_all(list(judged.values()), most_rows) if judged else []
            found = dict(zip(judged, judgements, strict=True))
        except Exception as problem:
            found = dict.fromkeys(judged, problem)
        return {key: (each, found.get(key, UNJUDGED)) for key, each in ready.items()}
