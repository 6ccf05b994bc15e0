"""How fast training is, eager and compiled, and whether a run goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from ddpm_core.training import machine, run
from ddpm_core.training import recipe as recipes
from ddpm_core.training.logbook import read_metrics
from ddpm_core.training.loop import Limits
from gpu_steps.setting import ROOT, Setting

_TINY = {
    "network": {"class": "AttentionUNet", "widths": [8, 8], "middle": 8, "heads": 2},
    "image_size": 16,
    "patch": 1,
    "batch": 8,
    "precision": "float32",
}


def training(setting: Setting) -> dict[str, Any]:
    """Train the embedded model's recipe on noise: images a second, eager, compiled and resumed."""
    pictures = setting.folder / "pictures"
    pictures.mkdir()
    random = np.random.default_rng(0)
    for i in range(setting.sized(512, 24)):
        Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(pictures / f"{i:04}.png")
    lacks = machine.missing_to_compile(setting.device)
    found: dict[str, Any] = {"not_compiled_for_want_of": lacks}
    steps, every = setting.sized((120, 20), (6, 2))
    settings = {"steps": 10 * steps, "batch": 128, "log_every": every, "validate_every": 0, "sample_every": 0}
    settings |= _TINY if setting.tiny else {}
    for name, compiled in {"eager": False, "compiled": True}.items():
        if compiled and (lacks or setting.tiny):
            continue
        recipe = recipes.change(recipes.read(ROOT / "recipes" / "faces-64.yaml"), settings | {"compile": compiled})
        out = setting.folder / name
        run.train(pictures, out, recipe, Limits(max_steps=steps // 2, max_minutes=1.0))
        at = run.resume(out, limits=Limits(max_steps=steps, max_minutes=1.0))
        speeds = [row["images_per_second"] for row in read_metrics(out) if "images_per_second" in row]
        losses = [row["loss"] for row in read_metrics(out) if "loss" in row]
        found[name] = {
            "images_a_second": round(max(speeds), 1),
            "steps": at.step,
            "losses": [round(loss, 4) for loss in losses],
        }
    return found
