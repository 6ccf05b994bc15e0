"""The ways from a target to a face that are compared: a mode, the origin program's guidance, any point of the curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, NoReturn

from ddpm_core.bundle import Bundle
from ddpm_core.errors import InvalidInput
from ddpm_core.gate import Judgement
from ddpm_core.pixels import Pixels
from ddpm_core.plan import APART, CurvePoint, Mode, Plan, curve, make_plan

DEFAULT = "none,celebrity,likeness,faithful,pixel:10/20/50"
MODES = tuple(mode for mode in Mode if mode is not Mode.AUTO)  # `auto` takes one of the others
STOP_SHARE = 1 / 6.5
POINT_CALLS = 9
_GRAMMAR = (
    f"{', '.join(MODES)}, or start:grid:weight; mode[:calls], pixel[:scale[:calls]], "
    "start:grid:weight[:stop[:chroma[:calls[:apart]]]]; several numbers with / between them"
)


@dataclass(frozen=True)
class Method:
    """One way to make a face.

    Attributes:
        name: what was written to ask for it, such as `likeness`, `pixel:50` or `6.2:16:0.7`.
        how: what `make_plan` takes beside the target, the number of images and the seed.
    """

    name: str
    how: Mapping[str, Any]

    @property
    def of_the_origin(self) -> bool:
        """Whether this is the guidance of the program that this one descends from."""
        return self.how["mode"] is Mode.PIXEL

    def plan(self, bundle: Bundle, target: Pixels, num_images: int, seed: int, *, face: bool = True) -> Plan:
        """Plan the images of one target, (H, H, 3) uint8, with a face or without; else as for `make_plan`."""
        judgement = Judgement(has_face=face)
        return make_plan(bundle, target, num_images=num_images, seed=seed, judgement=judgement, **self.how)

    def settings(self, bundle: Bundle, target: Pixels) -> dict[str, Any]:
        """Give all that decides what the method makes, in numbers and words; of a mode also its place on the curve."""
        used = self.plan(bundle, target, 1, 0).parameters
        settings = {key: value for key, value in used.items() if key not in ("num_images", "seed")}
        point = self.how.get("point") or (curve(used["resemblance"]) if "resemblance" in used else None)
        numbers = {key: value for key, value in asdict(point).items() if key != "calls"} if point else {}
        return {"method": self.name, **settings, **numbers}


def parse_methods(text: str) -> list[Method]:
    """Read methods, with commas between them.

    `likeness` or `likeness:10` is a mode and its network calls; `pixel:50` or `pixel:50:40` the origin's guidance, its
    loss scale and calls; `6.2:16:0.7` a point of low-pass guidance: σ at the start (of 256 px), grid and weight, then
    if need be σ at the stop (a 6.5th of the start), chroma (1), calls (9) and how far apart the details stay (0.5).
    Several numbers with slashes between them stand for a method each: `6.2/10:8/16:.7` are four.

    Raises:
        InvalidInput: not such a list.
    """
    found = [Method(_named(words), _how(words)) for item in text.split(",") for words in _spelt_out(item)]
    return list({method.name: method for method in found}.values())


def _spelt_out(item: str) -> list[list[str]]:
    return [list(words) for words in product(*(part.split("/") for part in item.strip().split(":")))]


def _named(words: Sequence[str]) -> str:
    """Write a number in one way, so that a method has one name."""
    return ":".join(word if i == 0 and word in MODES else f"{_number(word, words):g}" for i, word in enumerate(words))


def _how(words: Sequence[str]) -> dict[str, Any]:
    head, *rest = words
    numbers = [_number(word, words) for word in rest]
    if head in MODES:
        mode = Mode(head)
        settings = ["guidance_loss_scale", "num_inference_steps"] if mode is Mode.PIXEL else ["num_inference_steps"]
        if len(numbers) > len(settings):
            _refuse(words)
        how: dict[str, Any] = {"mode": mode, **dict(zip(settings, numbers, strict=False))}
        if "num_inference_steps" in how:
            how["num_inference_steps"] = _whole(how["num_inference_steps"], words)
        return how
    if not 2 <= len(numbers) <= 6:
        _refuse(words)
    start = _number(head, words)
    defaults = [0.0, 0.0, start * STOP_SHARE, 1.0, float(POINT_CALLS), APART]
    grid, weight, stop, chroma, calls, apart = [*numbers, *defaults[len(numbers) :]]
    shares = (weight, chroma, apart)
    if not (0 < stop < start and grid >= 1 and calls >= 1 and all(0 <= share <= 1 for share in shares)):
        _refuse(words)
    whole = _whole(calls, words)
    point = CurvePoint(start, stop, _whole(grid, words), weight, chroma, whole, apart)
    return {"mode": Mode.LIKENESS, "point": point, "num_inference_steps": whole}


def _number(word: str, words: Sequence[str]) -> float:
    try:
        value = float(word)
    except ValueError:
        _refuse(words)
    return value


def _whole(number: float, words: Sequence[str]) -> int:
    if number != round(number):
        _refuse(words)
    return round(number)


def _refuse(words: Sequence[str]) -> NoReturn:
    given = ":".join(words)
    message = f"--methods: {given!r} is not one of: {_GRAMMAR}."
    raise InvalidInput("unknown_value", message, field="methods", given=given, allowed=_GRAMMAR) from None
