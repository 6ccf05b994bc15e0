"""A data set and a recipe that train in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm_core.training import recipe as recipes

SETTINGS = {
    "network": {"class": "AttentionUNet", "widths": [8, 8], "middle": 8, "heads": 2},
    "image_size": 16,
    "batch": 8,
    "steps": 8,
    "warmup": 2,
    "learning_rate": 2e-3,
    "validation": 0.2,
    "precision": "float32",
    "log_every": 1,
    "validate_every": 4,
    "sample_every": 0,
    "checkpoint_every": 2,
    "checkpoint_minutes": 0,
    "ema_half_life": 100,
    "samples": 4,
}


def make(folder: Path, count: int = 30) -> Path:
    """Squares of one bright colour on another, a class a colour."""
    random = np.random.default_rng(0)
    for i in range(count):
        picture = np.empty((16, 16, 3), np.uint8)
        picture[:] = random.integers(0, 80, 3)
        x, y = random.integers(0, 8, 2)
        picture[y : y + 8, x : x + 8] = random.integers(150, 256, 3)
        file = folder / f"class{i % 2}" / f"{i:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def make_pictures():
    return make


@pytest.fixture(scope="session")
def tiny():
    """Make the small recipe with some settings changed."""
    return lambda **changes: recipes.change(recipes.Recipe(), {**SETTINGS, **changes})
