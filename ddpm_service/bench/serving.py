"""The serving benchmark: the same load on every arm, what each answers in time, and what the front door costs."""

from __future__ import annotations

import asyncio
import io
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import requests
from PIL import Image, ImageChops

from ddpm_api import Event, PreviewEvent, ProgressEvent, parse_event
from ddpm_service.bench.added import added
from ddpm_service.bench.arms import dynamic_batching, flask_and_lock, front_door
from ddpm_service.bench.asking import post, seconds
from ddpm_service.bench.load import STEPS, Arrival, Outcome, burst, percentile, play, poisson, share_in_time
from ddpm_service.errors import ServiceError

FACTORS = (1.5, 2.0, 5.0)
"""Multiples of the solo latency within which an answer is in time."""
_DECISIVE = 2.0
_WANTED = 0.9
_GIVE_UP = 0.5
_SOLO_RUNS = 3
# Of the same weights and noise, by the rounding of another batch.
_GREY_LEVELS = 1
_DTYPES = ("float32", "bfloat16")
_OURS = "front door"
_NOTHING = "there is nothing to compare"


@dataclass(frozen=True)
class Plan:
    """How long and how hard.

    Attributes:
        loads: rates as multiples of one request after the other.
        count: requests at each rate.
        burst: requests at once.
        delays: values of `maxBatchDelay` (ms) that dynamic batching is tried with.
        batch_size: the largest batch of dynamic batching.

    Raises:
        ServiceError: a load or a delay that cannot be.
    """

    loads: tuple[float, ...] = (0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0)
    count: int = 60
    burst: int = 24
    delays: tuple[int, ...] = (5, 100)
    batch_size: int = 16

    def __post_init__(self) -> None:
        for load in self.loads:
            if not 0 < load < math.inf:
                raise ServiceError(f"--loads must be above 0, not {load:g}")
        for delay in self.delays:
            if delay < 0:
                raise ServiceError(f"--delays must be 0 or more, not {delay}")


@dataclass
class Figures:
    """What was seen.

    Attributes:
        solo: seconds of a request alone in the plain loop, by calls; all arms are held to them.
        rows: one for each arm and load.
        highest: the highest rate (requests a second) of each arm with 90 % within 2 × solo.
        front_door: what it adds, and how soon a preview comes.
        dtype: the precision that all arms work in.
    """

    solo: dict[int, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    highest: dict[str, float] = field(default_factory=dict)
    front_door: dict[str, float] = field(default_factory=dict)
    dtype: str = ""


def measure(bundle: Path, config: Path, plan: Plan, raw: Path, say: Callable[[str], None]) -> Figures:
    """Run all arms side by side, and load one after the other, so that all meet the same machine.

    Args:
        bundle: the model.
        config: TorchServe's settings.
        plan: how long and how hard.
        raw: where a line of JSON for each request goes.
        say: told what is done next.

    Raises:
        ServiceError: an arm does not start, or makes another picture of the same seed.
    """
    figures = Figures()
    with ExitStack() as stack, raw.open("w") as lines:
        say("starting: front door")
        ours, behind = stack.enter_context(front_door(bundle, config))
        say("starting: flask and lock")
        figures.dtype, plain = _same_precision(stack, bundle, _picture(ours))
        arms = {_OURS: ours, "flask and lock": plain}
        for delay in plan.delays:
            name = f"dynamic batching, {delay} ms"
            say(f"starting: {name}")
            arm = dynamic_batching(bundle, config, figures.dtype, batch_size=plan.batch_size, delay=delay)
            arms[name] = stack.enter_context(arm)
            if not _same(_picture(ours), _picture(arms[name])):
                raise ServiceError(f"{name} makes another picture of the same seed: {_NOTHING}")
        say("alone")
        figures.solo = _solo(plain)
        figures.front_door = added(ours, behind) | _preview(ours)
        _load(arms, plan, figures, lines, say)
    return figures


def _same_precision(stack: ExitStack, bundle: Path, picture: Image.Image) -> tuple[str, str]:
    """The plain loop in the precision that the front door chose by measuring: its name, and the loop's address."""
    for dtype in _DTYPES:
        with ExitStack() as trial:
            url = trial.enter_context(flask_and_lock(bundle, dtype))
            if _same(picture, _picture(url)):
                stack.push(trial.pop_all())
                return dtype, url
    raise ServiceError(f"the front door makes another picture of the same seed: {_NOTHING}")


def _load(arms: Mapping[str, str], plan: Plan, figures: Figures, lines: TextIO, say: Callable[[str], None]) -> None:
    """Put heavier and heavier loads on each arm, until hardly anything is in time; then a burst."""
    alone = 1 / statistics.mean(figures.solo.values())
    figures.highest = dict.fromkeys(arms, 0.0)
    able = set(arms)
    for share in plan.loads:
        rate = share * alone
        for name in sorted(able):
            say(f"{rate:.2f} a second: {name}")
            row = _play(name, arms[name], f"{rate:.3f}/s", poisson(rate, plan.count), figures, lines)
            if row[f"within {_DECISIVE:g}"] >= _WANTED:
                figures.highest[name] = rate
            if row[f"within {_DECISIVE:g}"] < _GIVE_UP:
                able.remove(name)
    for name, url in arms.items():
        say(f"burst: {name}")
        _play(name, url, f"burst of {plan.burst}", burst(plan.burst), figures, lines)


def _play(
    name: str, url: str, load: str, arrivals: Sequence[Arrival], figures: Figures, lines: TextIO
) -> dict[str, Any]:
    outcomes = asyncio.run(play(url, arrivals, patience=20 * max(figures.solo.values()) + 10))
    lines.writelines(json.dumps(each.line(arm=name, load=load)) + "\n" for each in outcomes)
    row = _row(name, load, outcomes, figures.solo)
    figures.rows.append(row)
    return row


def _row(name: str, load: str, outcomes: Sequence[Outcome], solo: Mapping[int, float]) -> dict[str, Any]:
    last = max(each.arrival.at + each.seconds for each in outcomes)
    row: dict[str, Any] = {"arm": name, "load": load, "failed": sum(each.status != 200 for each in outcomes)}
    row |= {f"p{100 * share:.0f}": percentile(outcomes, share) for share in (0.5, 0.95, 0.99)}
    row |= {f"within {factor:g}": share_in_time(outcomes, solo, factor) for factor in FACTORS}
    goodput = {f"goodput {factor:g}": row[f"within {factor:g}"] * len(outcomes) / last for factor in FACTORS}
    return row | goodput


def _picture(url: str) -> Image.Image:
    return Image.open(io.BytesIO(post(url, num_inference_steps=6, seed=7))).convert("RGB")


def _same(first: Image.Image, second: Image.Image) -> bool:
    """Whether two arms do the same work: the same picture but for rounding."""
    if first.size != second.size:
        return False
    extremes: Any = ImageChops.difference(first, second).getextrema()
    return bool(max(high for _, high in extremes) <= _GREY_LEVELS)


def _solo(url: str) -> dict[int, float]:
    def ask(steps: int) -> float:
        return seconds(lambda: post(url, num_inference_steps=steps, seed=0))

    return {steps: statistics.median(ask(steps) for _ in range(_SOLO_RUNS)) for steps in STEPS}


def _preview(url: str) -> dict[str, float]:
    """Seconds to the first step and to the first preview of an idle server, asked for a preview at every step."""
    body = {"num_images": 1, "num_inference_steps": 18, "preview_every": 1, "seed": 0}
    begin = time.perf_counter()
    first: dict[str, float] = {}
    headers = {"Accept": "application/x-ndjson"}
    with requests.post(url, json=body, headers=headers, stream=True) as answer:
        for line in answer.iter_lines(chunk_size=None):
            event: Event = parse_event(line)
            for kind, name in ((ProgressEvent, "first_step"), (PreviewEvent, "first_preview")):
                if isinstance(event, kind):
                    first.setdefault(name, time.perf_counter() - begin)
    return first
