"""What a run has seen: `metrics.jsonl`, TensorBoard, a loss curve and sample grids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

METRICS = "metrics.jsonl"


class Logbook:
    """A run's figures and pictures on disk; rows after the step resumed from are forgotten.

    Args:
        run: the run's folder.
        step: the step that the run goes on from.
    """

    def __init__(self, run: Path, step: int) -> None:
        self.run = run
        kept = [row for row in read_metrics(run) if row["step"] <= step]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        (run / METRICS).write_text(text, encoding="utf-8")
        self._board: Any = None
        if find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def row(self, row: Mapping[str, Any]) -> None:
        """Append one row; it has a `step`."""
        with (self.run / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._board is not None:
            for key, value in row.items():
                if key != "step":
                    self._board.add_scalar(key, value, row["step"])
            self._board.flush()

    def grid(self, step: int, grid: NDArray[np.uint8]) -> None:
        """Keep a sample grid, (H, W, 3)."""
        folder = self.run / "samples"
        folder.mkdir(exist_ok=True)
        Image.fromarray(grid).save(folder / f"step-{step:08d}.png")
        if self._board is not None:
            self._board.add_image("samples", grid, step, dataformats="HWC")
            self._board.flush()

    def curve(self) -> None:
        """Draw the loss curve."""
        if find_spec("matplotlib"):
            draw_losses(self.run, self.run / "losses.png")

    def close(self) -> None:
        """Let go of the files."""
        if self._board is not None:
            self._board.close()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Give the rows of a run's `metrics.jsonl`; a last line cut off by a kill is left out."""
    rows = []
    path = run / METRICS
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def draw_losses(run: Path, out: Path) -> None:
    """Draw training and validation loss against images seen, from `metrics.jsonl`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_metrics(run)
    figure = Figure(figsize=(8, 4.5))
    figure.subplots_adjust(left=0.1, right=0.98, bottom=0.11, top=0.93)  # to find these takes as long as to draw
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for key, label in (("loss", "training"), ("validation_loss", "validation (EMA)")):
        points = [(row["images"], row[key]) for row in rows if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1, marker="o" if len(points) == 1 else None)
    axes.set(xlabel="images seen", ylabel="loss", title=run.name)
    if axes.lines:
        axes.set_yscale("log")
        axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(out, dpi=120)
