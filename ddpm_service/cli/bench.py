"""`ddpm bench`: how fast it is on this machine, and what it costs."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ddpm_service.cli.bench_serve import serve
from ddpm_service.cli.extras import extra
from ddpm_service.cli.failure import told_in_a_line

app = typer.Typer(help="Measure on this machine. Example: ddpm bench --out bench", rich_markup_mode=None)
app.command()(serve)


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    bundle: Annotated[Path, typer.Option(help="The model that is served.")] = Path("models/faces-64/2.1"),
    out: Annotated[Path, typer.Option(file_okay=False, help="Where figures.json goes.")] = Path("bench"),
    config: Annotated[Path, typer.Option(help="TorchServe's settings.")] = Path("config.properties"),
) -> None:
    """Measure REST against the same plan in-process, the worker's memory, and the program this descends from.

    Takes about eight minutes on two cores; leave the machine alone meanwhile.

    Example: ddpm bench --out bench
    """
    if context.invoked_subcommand:
        return
    console = Console(stderr=True)
    with told_in_a_line("ddpm bench"), Progress(console=console, disable=not console.is_terminal) as progress:
        from ddpm_core.evaluation.speed import solo

        figures: dict[str, Any] = {"machine": {"processor": platform.processor(), "cores": os.cpu_count()}}
        figures |= _served(bundle, config, progress)
        task = progress.add_task("solo", total=None)
        figures["solo"] = asdict(solo(lambda what: progress.update(task, description=f"solo: {what}")))
        progress.update(task, total=1, completed=1)
    out.mkdir(parents=True, exist_ok=True)
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    Console().print(_table(figures))


def _served(bundle: Path, config: Path, progress: Progress, *, pairs: int = 15, requests: int = 200) -> dict[str, Any]:
    """Time REST and the same plan in this process in turn; then watch the worker's memory."""
    with extra("dev"):
        import skimage.data
    from ddpm_core import load
    from ddpm_core.evaluation.speed import IMAGES
    from ddpm_core.faces import encode
    from ddpm_core.plan import make_plan
    from ddpm_core.timing import in_turn
    from ddpm_service.bench.rest import memory, serving

    picture = encode(skimage.data.astronaut(), "jpeg")
    task = progress.add_task("starting the server", total=pairs + 1 + 20 + requests)
    pipeline = load(bundle)
    plan = make_plan(pipeline.bundle, pipeline.aim(picture).pixels, num_images=IMAGES, mode="likeness", seed=0)
    with serving(bundle, config) as served:
        progress.update(task, description="REST and in-process in turn")

        def over_rest() -> None:
            served.generate(picture, num_images=IMAGES, mode="likeness", seed=0)
            progress.advance(task)

        rest, alone = in_turn([over_rest, lambda: pipeline.run(plan)], pairs)
        progress.update(task, description="memory")
        growth = memory(served, picture, lambda: progress.advance(task), requests=requests)
    ratios = [a / b for a, b in zip(rest, alone, strict=True)]
    return {"rest": {"rest": rest, "in_process": alone, "ratio": median(ratios)}, "memory": asdict(growth)}


def _table(figures: dict[str, Any]) -> Table:
    rest, memory, solo = figures["rest"], figures["memory"], figures["solo"]
    origin, ours = solo["origin_step"] * solo["origin_steps"], solo["our_tick"] * solo["our_calls"]
    table = Table("figure", "measured", "target", box=None)
    for row in (
        ("five guided 64 px faces over REST", f"{median(rest['rest']):.2f} s", ""),
        ("the same plan in-process", f"{median(rest['in_process']):.2f} s", ""),
        ("REST / in-process, median of pairs", f"{rest['ratio']:.2f}", "≤ 1.25"),
        ("worker memory", f"{memory['after'] / 2**30:.2f} GiB", "≤ 1.5 GiB"),
        (
            f"growth over {memory['requests']} requests",
            f"{(memory['after'] - memory['before']) / 2**20:+.1f} MiB",
            "none",
        ),
        ("S0's loop, five 256 px faces, 40 steps", f"{origin:.0f} s", ""),
        (f"our likeness plan, {solo['our_calls']} calls", f"{ours:.0f} s", ""),
        ("S0 / ours", f"{origin / ours:.1f}", "≥ 8"),
        (
            f"one call: float32 / {solo['dtype']} channels last",
            f"{solo['plain_call'] / solo['fast_call']:.2f}",
            "≥ 4 with bf16",
        ),
        ("guided tick / unguided tick", f"{solo['our_tick'] / solo['unguided_tick']:.3f}", "≤ 1.05"),
    ):
        table.add_row(*row)
    return table
