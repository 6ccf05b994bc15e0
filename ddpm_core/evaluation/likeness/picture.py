"""Resemblance against realism, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ddpm_core.evaluation.likeness.frontier import (
    ALIKE,
    EVERYTHING,
    REALISTIC,
    by_strength,
    copies,
    frontier,
    made,
    of_no_mode,
    of_the_origin,
)
from ddpm_core.evaluation.plots import new_figure, save
from ddpm_core.evaluation.sweep import REAL
from ddpm_core.evaluation.table import Row

_OURS, _ORIGIN, _POINT = "tab:blue", "tab:red", "slategrey"


def draw_likeness(rows: Sequence[Row], out: Path) -> None:
    """Draw one point a method: left is more alike, down is more real; copies are crosses, and the frontier a line."""
    figure = new_figure(11, 7.5)
    axes = figure.subplots()
    shown = made(rows)
    for i, row in enumerate(sorted(shown, key=lambda row: row[EVERYTHING])):
        colour = _ORIGIN if of_the_origin(row) else _POINT if of_no_mode(row) else _OURS
        x = row[EVERYTHING] if copies(row) else row[ALIKE]
        axes.plot(x, row[REALISTIC], "x" if copies(row) else "o", color=colour, markersize=7, zorder=3)
        axes.annotate(
            f"{row['method']} ({row['num_inference_steps']})",
            (x, row[REALISTIC]),
            xytext=(6, -10 if i % 2 else 4),  # so that neighbours can be read
            textcoords="offset points",
            fontsize=8,
            color=colour,
        )
    best = frontier(rows)
    axes.plot([row[ALIKE] for row in best], [row[REALISTIC] for row in best], "-", color="seagreen", label="frontier")
    where = [(row[EVERYTHING] if copies(row) else row[ALIKE], row[REALISTIC]) for row in by_strength(rows)]
    axes.plot([x for x, _ in where], [y for _, y in where], ":", color=_ORIGIN, label="the origin's guidance (pixel)")
    axes.plot([], [], "o", color=_OURS, label="modes (network calls)")
    axes.plot([], [], "o", color=_POINT, label="points start:grid:weight")
    axes.plot([], [], "x", color="black", label="more than 1 % copies")
    for row in rows:
        if row["method"] == REAL:
            axes.axhline(row[REALISTIC], color="grey", linewidth=1, linestyle="--", label="real faces")
    last = rows[-1]
    axes.set(
        title=f"{last['model']} {last['version']}: {last['images']} images of {last['targets_with_face']} targets",
        xscale="log",
        xlabel="low-pass distance to the target at 16 cells   (left: more alike)",
        ylabel="kernel distance to real faces in the model's own features   (down: more real)",
    )
    axes.margins(x=0.12)  # room for the words beside the points
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, out)
