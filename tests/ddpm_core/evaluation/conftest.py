"""Drawn pictures that vary in a few ways, and a toy model of their size."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm_core.pipeline import Pipeline, load

SIDE = 32


def draw(count: int, seed: int, side: int = SIDE) -> np.ndarray:
    """(N, side, side, 3) uint8: a disc of one colour on a gradient, with stripes across it."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    pictures = []
    for _ in range(count):
        (cx, cy), r = random.uniform(0.35, 0.65, 2), random.uniform(0.2, 0.35)
        ground = random.uniform(40, 120, 3) + random.uniform(-60, 60, 3) * y[..., None]
        stripes = 20 * np.sin(2 * np.pi * (random.uniform(3, 6) * x + random.uniform(0, 1)))
        disc = random.uniform(150, 230, 3) + stripes[..., None]
        inside = ((x - cx) ** 2 + (y - cy) ** 2 < r**2)[..., None]
        pictures.append(np.where(inside, disc, ground).clip(0, 255).astype(np.uint8))
    return np.stack(pictures)


@pytest.fixture(scope="session")
def drawn():
    return draw


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    """60 pictures as files."""
    folder = tmp_path_factory.mktemp("photographs")
    for i, picture in enumerate(draw(60, seed=0)):
        Image.fromarray(picture).save(folder / f"{i:03}.png")
    return folder


@pytest.fixture(scope="session")
def toy_path(tmp_path_factory, write_toy_bundle) -> Path:
    return write_toy_bundle(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture(scope="session")
def toy(toy_path) -> Pipeline:
    return load(toy_path, device="cpu", dtype="float32", run_code=True)


@pytest.fixture(scope="session")
def persons(tmp_path_factory) -> Path:
    """A zip with 2 photographs of each of 40 persons: the same drawing, moved a little, in another light."""
    path = tmp_path_factory.mktemp("persons") / "faces.zip"
    random = np.random.default_rng(7)
    with zipfile.ZipFile(path, "w") as file:
        for person, picture in enumerate(draw(40, seed=3)):
            before = np.full(2, np.nan)
            for k in range(2):
                move, light = random.integers(-2, 3, 2), random.integers(-25, 26)
                move, before = move + (move == before).all(), move  # two photographs never differ in light alone
                moved = np.roll(picture, move, (0, 1)).astype(int) + light
                kept = io.BytesIO()
                Image.fromarray(moved.clip(0, 255).astype(np.uint8)).save(kept, "PNG")
                file.writestr(f"lfw/Person_{person:02}_{k:04}.png", kept.getvalue())
    return path
