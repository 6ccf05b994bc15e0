"""`ddpm bench serve`: the front door beside other ways to serve the same model."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ddpm_service.cli.failure import told_in_a_line

_WIDTH = 160


def serve(
    bundle: Annotated[Path, typer.Option(help="The model that is served.")] = Path("models/faces-64/2.1"),
    out: Annotated[Path, typer.Option(file_okay=False, help="Where the figures go.")] = Path("bench"),
    config: Annotated[Path, typer.Option(help="TorchServe's settings.")] = Path("config.properties"),
    count: Annotated[int, typer.Option(help="Requests at each rate.", min=4)] = 60,
    loads: Annotated[str, typer.Option(help="Rates, as multiples of one request after the other.")] = (
        "0.4,0.6,0.8,1,1.25,1.5,2"
    ),
    delays: Annotated[str, typer.Option(help="Milliseconds that dynamic batching collects for.")] = "5,100",
) -> None:
    """Compare the front door, TorchServe's dynamic batching and Flask with a lock under the same open-loop load.

    Arrivals are drawn beforehand; requests of 6, 18 and 60 network calls come equally often; latency counts from the
    scheduled arrival. Only loopback is asked. Leave the machine alone meanwhile.

    Example: ddpm bench serve --count 60 --out bench
    """
    console = Console(stderr=True)
    with told_in_a_line("ddpm bench serve"):
        from ddpm_service.bench.serving import Plan, measure

        plan = Plan(loads=_numbers(loads, "--loads"), count=count, delays=tuple(map(int, _numbers(delays, "--delays"))))
        out.mkdir(parents=True, exist_ok=True)
        raw = out / "serving.jsonl"
        figures = measure(bundle, config, plan, raw, lambda line: console.print(line, highlight=False))
        document = asdict(figures) | {"plan": asdict(plan)}
        (out / "serving.json").write_text(json.dumps(document, indent=2) + "\n")
        Console(width=_WIDTH).print(*_tables(document), sep="\n")


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(word) for word in text.split(","))
        if not all(map(math.isfinite, numbers)):
            raise ValueError
        return numbers
    except ValueError:
        raise typer.BadParameter(f"{text} is no list of numbers such as 1,2.5", param_hint=option) from None


def _tables(document: dict[str, Any]) -> list[Table]:
    rows = document["rows"]
    table = Table(*rows[0], box=None)
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    highest = Table("arm", "highest rate with 90 % within 2 x solo, a second", box=None)
    for name, rate in document["highest"].items():
        highest.add_row(name, _cell(rate))
    more = Table("figure", "measured", box=None)
    for steps, seconds in document["solo"].items():
        more.add_row(f"plain loop alone, {steps} calls (s)", _cell(seconds))
    for name, value in document["front_door"].items():
        more.add_row(f"front door: {name}", _cell(value))
    return [table, highest, more]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
