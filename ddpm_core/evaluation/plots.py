"""Pictures of what the models do: schedules, forward and backward diffusion, plans, samples, copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ddpm_core.errors import InvalidInput
from ddpm_core.evaluation.copies import Copies
from ddpm_core.pipeline import Pipeline
from ddpm_core.pixels import Pixels, to_pixels, to_tensor
from ddpm_core.plan import make_plan
from ddpm_core.sampling import Sampler, SampleState, StepTable, noise, sample
from ddpm_core.sampling.table import COLUMNS
from ddpm_core.schedule import NoiseSchedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 120
_COLUMNS = 9
_PAIRS = 40
_PAIRS_A_ROW = 8


def draw_schedules(schedules: Mapping[str, tuple[NoiseSchedule, int]], out: Path) -> None:
    """Draw ᾱ and the noise normalised to 256 px against the share of the way; by name, each with its image size."""
    figure = new_figure(10, 4)
    signal, sigma = figure.subplots(1, 2)
    for (name, (schedule, side)), dashes in zip(schedules.items(), cycle(("-", "-", "--", ":")), strict=False):
        at = np.arange(schedule.num_levels + 1) / schedule.num_levels
        signal.plot(at, schedule.alpha_bar, dashes, label=name)
        sigma.plot(at[1:], schedule.sigma_256(side)[1:], dashes, label=f"{name}, {side} px")
    signal.set(title="share of the signal's variance", xlabel="level / T", ylabel="ᾱ")
    sigma.set(title="noise, normalised to 256 px", xlabel="level / T", ylabel="σ₂₅₆", yscale="log", ylim=(1e-2, 1e3))
    for axes in (signal, sigma):
        axes.grid(alpha=0.3)
        axes.legend()
    save(figure, out)


def draw_forward(pixels: Pixels, schedules: Mapping[str, NoiseSchedule], out: Path) -> None:
    """Draw how noise takes a picture, (H, H, 3), over: a row a schedule, all with the same noise."""
    x0 = to_tensor(pixels.copy())  # torch wants memory that may be written to
    z = noise(0, 0, x0.shape)
    rows, titles = {}, []
    for name, schedule in schedules.items():
        levels = np.linspace(0, schedule.num_levels, _COLUMNS).round().astype(int)
        a = schedule.alpha_bar[levels]
        rows[name] = [to_pixels(float(k) ** 0.5 * x0 + float(1 - k) ** 0.5 * z) for k in a]
        titles = [f"{share:.3g}" for share in levels / schedule.num_levels]
    _strips(rows, titles, "forward diffusion: level / T", out)


def draw_backward(
    pipeline: Pipeline, sampler: Sampler, num_inference_steps: int, seeds: Sequence[int], out: Path
) -> None:
    """Draw how pictures come out of noise: for each seed what is under way, and the clean picture predicted from it."""
    calls = num_inference_steps
    plans = [make_plan(pipeline.bundle, sampler=sampler, num_inference_steps=calls, seed=seed) for seed in seeds]
    trace: list[Sequence[SampleState]] = [[state for plan in plans for state in plan.start()]]
    sample(pipeline.denoiser, trace[0], on_step=trace.append)
    stops = np.unique(np.linspace(0, calls, min(_COLUMNS, calls + 1)).round().astype(int)).tolist()
    rows = {}
    for i, seed in enumerate(seeds):
        under_way = [states[i].x for states in trace]
        predicted = [states[i].x0_prev for states in trace[1:]] + under_way[-1:]
        for name, pictures in ((f"seed {seed}", under_way), (f"predicted {seed}", predicted)):
            rows[name] = [to_pixels(picture) for picture in (pictures[stop] for stop in stops) if picture is not None]
    _strips(rows, [str(stop) for stop in stops], f"{_title(pipeline)}, {sampler}: network calls made", out)


_COLUMN_MEANS = {
    "A": "x, the picture under way",
    "B0": "x₀, the clean picture foreseen now",
    "B1": "x₀ of the call before",
    "R": "r, x₀ before it is clipped",
    "D": "z, fresh noise",
    "shift": "Δ, what the selfie moves",
    "guide": "push away from the worse network",
    "weight": "pull to the selfie's coarse shapes",
    "chroma": "pull to its colours",
    "apart": "least distance from its detail",
    "spared": "share that eyes, nose and mouth are spared of it",
    "pixel": "step along the error of its pixels",
}


def draw_table(table: StepTable, title: str, out: Path) -> None:
    """Draw a plan's numbers against its network calls; columns that do nothing are left out."""
    figure = new_figure(12, 6.5)
    top, bottom = figure.subplots(2, 1, sharex=True)
    calls = np.arange(1, len(table) + 1)
    used = [name for name in COLUMNS if getattr(table, name).any()]
    for name in used:
        axes: Axes = bottom if name in ("guide", "weight", "chroma", "apart", "spared", "pixel") else top
        if name != "grid":
            axes.plot(calls, getattr(table, name), label=f"{name}: {_COLUMN_MEANS[name]}", marker=".", linewidth=1)
    top.set(title=title, ylabel="coefficient in the next picture")
    bottom.step(
        calls, table.levels[:-1] / table.levels[0], label="level, as a share of the first", color="grey", where="mid"
    )
    label = "network call" + (f"; guided on a grid of {table.grid[0]:.0f} cells a side" if "grid" in used else "")
    bottom.set(xlabel=label, ylabel="level, strength of guidance")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
        axes.locator_params(axis="x", integer=True)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, out)


def draw_samples(rows: Mapping[str, Sequence[Pixels] | NDArray[np.uint8]], title: str, out: Path) -> None:
    """Draw samples, a row a sampler and number of steps, a column a seed."""
    _strips(rows, [], title, out)


def draw_copies(
    samples: NDArray[np.uint8], reference: NDArray[np.uint8], copies: Copies, title: str, out: Path
) -> None:
    """Draw each sample beside its nearest reference image, the most alike first, with their distance."""
    order = np.argsort(copies.distances)[:_PAIRS]
    across = min(_PAIRS_A_ROW, len(order))
    down = -(-len(order) // across)
    figure = new_figure(1.7 * across, 1.06 * down + 0.6)
    figure.suptitle(
        f"{title}: samples (left) and their nearest reference images (right), "
        f"distance in grey levels at 32 px\n1 % of real images are nearer than {copies.threshold:.1f} to another",
        fontsize=10,
    )
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, i in zip(grid.flat, order, strict=False):
        near = reference[copies.nearest[i]]
        near = near[:, ::-1] if copies.mirrored[i] else near
        gap = np.full((len(near), max(1, len(near) // 32), 3), 255, np.uint8)
        _show(axes, np.concatenate([samples[i], gap, near], axis=1))
        alarming = copies.distances[i] < copies.threshold
        axes.set_title(f"{copies.distances[i]:.1f}", fontsize=8, pad=2, color="red" if alarming else "black")
    save(figure, out)


def _strips(
    rows: Mapping[str, Sequence[Pixels] | NDArray[np.uint8]], titles: Sequence[str], title: str, out: Path
) -> None:
    """Lay pictures out in named rows under column titles."""
    across = max(len(pictures) for pictures in rows.values())
    figure = new_figure(1.15 * across + 1.3, 1.13 * len(rows) + 0.5)
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(len(rows), across, squeeze=False, gridspec_kw={"wspace": 0.03, "hspace": 0.03})
    for line, (name, pictures) in zip(grid, rows.items(), strict=True):
        for axes in line:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        for axes, picture in zip(line, pictures, strict=False):
            _show(axes, picture)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    for axes, words in zip(grid[0], titles, strict=False):
        axes.set_title(words, fontsize=9, pad=3)
    save(figure, out)


def _show(axes: Axes, picture: Pixels) -> None:
    """Show the pixels of a small picture as they are; a large one is drawn smaller, smoothly."""
    axes.imshow(picture, interpolation="nearest" if len(picture) <= 64 else "auto")


def _title(pipeline: Pipeline) -> str:
    return f"{pipeline.bundle.manifest.name} {pipeline.bundle.manifest.version}"


def new_figure(width: float, height: float) -> Figure:
    """Make an empty picture, in inches.

    Raises:
        InvalidInput: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        message = "Pictures need matplotlib: pip install 'ddpm-lookalike[train]'."
        raise InvalidInput("missing_package", message, field="matplotlib") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, out: Path) -> None:
    """Write a picture, with its folders."""
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=_DPI)
