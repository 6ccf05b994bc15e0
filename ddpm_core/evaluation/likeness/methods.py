"""The ways from a target to a face that are compared: a mode, the origin program's guidance, any point of the curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, NoReturn

import numpy as np

from ddpm_core.bundle import Bundle
from ddpm_core.curve import APART, CurvePoint, curve
from ddpm_core.errors import InvalidInput
from ddpm_core.evaluation.likeness.material import Target
from ddpm_core.plan import Mode, Plan, make_plan

DEFAULT = "none,celebrity,likeness,faithful,pixel:10/20/50"
STOP_SHARE = 1 / 6.5
POINT_CALLS = 9
_AFTER_A_MODE = dict.fromkeys(Mode, ("calls",)) | {Mode.PIXEL: ("guidance_loss_scale", "calls")}
_AFTER_A_START = ("grid", "weight", "stop", "chroma", "calls", "apart")
_BY_NAME = ("sampler", "eta", "guide")
"""What stands behind a mode or behind the start of a point, in this order or by its name, and what has a name only."""
_GRAMMAR = (
    f"{', '.join(Mode)}, or start:grid:weight; mode[:calls], pixel[:scale[:calls]], "
    "start:grid:weight[:stop[:chroma[:calls[:apart]]]]; behind them calls=, apart= and so on, sampler=, eta=, guide=, "
    "and of a mode resemblance=; several values with / between them"
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

    def plan(self, bundle: Bundle, target: Target, num_images: int, seed: int) -> Plan:
        """Plan the images of one target; else as for `make_plan`."""
        aim, judgement = target.pixels, target.judgement
        return make_plan(bundle, aim, num_images=num_images, seed=seed, judgement=judgement, **self.how)

    def settings(self, bundle: Bundle) -> dict[str, Any]:
        """Give all that decides what the method makes of a usual face; of a mode also its place on the curve.

        Raises:
            InvalidInput: what the model cannot do, as from `make_plan`.
        """
        side = bundle.manifest.image_size
        used = make_plan(bundle, np.zeros((side, side, 3), np.uint8), seed=0, **self.how).parameters
        settings = {key: value for key, value in used.items() if key not in ("num_images", "seed")}
        point = self.how.get("point") or (curve(used["resemblance"]) if "resemblance" in used else None)
        numbers = {key: value for key, value in asdict(point).items() if key != "calls"} if point else {}
        return {"method": self.name, **settings, **numbers}


def parse_methods(text: str) -> list[Method]:
    """Read methods, with commas between them.

    `likeness` or `likeness:10` is a mode and its network calls; `pixel:50` or `pixel:50:40` the origin's guidance, its
    loss scale and calls; `6.2:16:0.7` a point of low-pass guidance: σ at the start (of 256 px), grid and weight, then
    if need be σ at the stop (a 6.5th of the start), chroma (1), calls (9) and how far apart the details stay (0.5).
    What comes behind may be said by name too, `6.2:16:0.7:calls=12`, and so may the sampler, η and the guide's weight
    of all of them, and a mode's resemblance: `likeness:sampler=ddpm:resemblance=0.6`. Several values with slashes
    between them stand for a method each: `6.2/10:8/16:.7` are four.

    Raises:
        InvalidInput: not such a list.
    """
    found = [Method(_named(words), _how(words)) for item in text.split(",") for words in _spelt_out(item)]
    return list({method.name: method for method in found}.values())


def _spelt_out(item: str) -> list[list[str]]:
    return [list(words) for words in product(*(_values(part) for part in item.strip().split(":")))]


def _values(part: str) -> list[str]:
    name, equals, values = part.rpartition("=")
    return [f"{name}{equals}{value}" for value in values.split("/")]


def _named(words: Sequence[str]) -> str:
    """Write a number in one way, so that a method has one name."""
    return ":".join(_in_one_way(word) for word in words)


def _in_one_way(word: str) -> str:
    name, equals, value = word.rpartition("=")
    try:
        return f"{name}{equals}{float(value):g}"
    except ValueError:
        return word


def _how(words: Sequence[str]) -> dict[str, Any]:
    if "=" in words[0]:
        _refuse(words)
    head, *rest = (word for word in words if "=" not in word)
    mode = Mode(head) if head in set(Mode) else None
    order = _AFTER_A_START if mode is None else _AFTER_A_MODE[mode]
    named = [word.partition("=") for word in words if "=" in word]
    pairs = [*zip(order, rest, strict=False), *((name, value) for name, _, value in named)]
    given = dict(pairs)
    known = {*order, *_BY_NAME} | ({"resemblance"} if mode else set())
    if len(rest) > len(order) or len(given) < len(pairs) or not given.keys() <= known:
        _refuse(words)
    how: dict[str, Any] = {name: value if name == "sampler" else _number(value, words) for name, value in given.items()}
    if mode is None:
        return _point(_number(head, words), how, words)
    if "calls" in how:
        how["num_inference_steps"] = _whole(how.pop("calls"), words)
    return {"mode": mode, **how}


def _point(start: float, how: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Put the numbers of a point together and leave what else was said."""
    if "grid" not in how or "weight" not in how:
        _refuse(words)
    usual = {"stop": start * STOP_SHARE, "chroma": 1.0, "calls": float(POINT_CALLS), "apart": APART}
    at = {name: how.pop(name, usual.get(name)) for name in _AFTER_A_START}
    grid, weight, stop, chroma, calls, apart = (at[name] for name in _AFTER_A_START)
    shares = (weight, chroma, apart)
    if not (0 < stop < start and grid >= 1 and calls >= 1 and all(0 <= share <= 1 for share in shares)):
        _refuse(words)
    whole = _whole(calls, words)
    point = CurvePoint(start, stop, _whole(grid, words), weight, chroma, whole, apart)
    return {"mode": Mode.LIKENESS, "point": point, "num_inference_steps": whole, **how}


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
