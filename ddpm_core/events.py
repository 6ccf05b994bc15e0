"""What the engine reports of each request, in the order it happens. Pictures are plain uint8 arrays."""

from __future__ import annotations

from dataclasses import dataclass, field

from ddpm_core.pixels import Pixels


@dataclass(frozen=True)
class Queued:
    """The request waits; `position` requests are before it."""

    position: int


@dataclass(frozen=True)
class Started:
    """The first network call is about to be made, `queue_seconds` after admission."""

    queue_seconds: float


@dataclass(frozen=True)
class Progress:
    """`step` of `total_steps` network calls are made; about `eta_seconds` are left."""

    step: int
    total_steps: int
    eta_seconds: float


@dataclass(frozen=True)
class Preview:
    """The clean image that the network foresees for image `index` after `step` calls."""

    step: int
    index: int
    pixels: Pixels = field(repr=False)


@dataclass(frozen=True)
class Image:
    """A finished image, (H, W, 3) uint8; `resemblance_score` 0..1 says how near the selfie is, where there is one."""

    index: int
    seed: int
    resemblance_score: float | None
    pixels: Pixels = field(repr=False)


@dataclass(frozen=True)
class Failed:
    """The request failed and is over; `message` says why."""

    code: str
    message: str


@dataclass(frozen=True)
class End:
    """The request is answered and over.

    Attributes:
        queue_seconds: from admission to the first network call.
        seconds: from there to the end.
        calls: network calls × images.
    """

    queue_seconds: float
    seconds: float
    calls: int


Event = Queued | Started | Progress | Preview | Image | Failed | End
