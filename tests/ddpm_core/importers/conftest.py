"""Tiny networks with random weights, and what the world wraps around them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor

from ddpm_core.bundle import Bundle
from ddpm_core.importers import Answers, Schedule, import_model
from ddpm_core.unet import AttentionUNet

SAID: dict[str, Any] = {
    "name": "tiny",
    "version": "1.0",
    "image_size": 16,
    "prediction_type": "epsilon",
    "schedule": Schedule.LINEAR,
    "network": {"norm_num_groups": 4, "attention_head_dim": 8},
}
"""All that a bare state dict of the tiny UNet leaves open."""

Import = Callable[..., Bundle]


@pytest.fixture
def unet() -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        layers_per_block=1,
    )


@pytest.fixture
def dogs() -> AttentionUNet:
    """The dogs network in small."""
    torch.manual_seed(0)
    return AttentionUNet(widths=(8, 16, 16), middle=24, heads=2)


@pytest.fixture
def averaged(unet: UNet2DModel) -> dict[str, Tensor]:
    """Other weights for the UNet: what an average would be."""
    return {key: value + 0.01 for key, value in unet.state_dict().items()}


@pytest.fixture
def bring(tmp_path: Path) -> Import:
    """Import a source, or a checkpoint of what is given; all that it may leave open is said, unless changed."""

    def bring(source: Any, **said: Any) -> Bundle:
        if not isinstance(source, str | Path):
            torch.save(source, tmp_path / "source.pt")
            source = tmp_path / "source.pt"
        return import_model(str(source), tmp_path / "out" / "1.0", Answers(**{**SAID, **said}))[0]

    return bring


@pytest.fixture
def nothing_is_left(tmp_path: Path) -> Callable[[], bool]:
    """Whether an import that failed has left neither a bundle nor parts of one."""
    before = {path.name for path in tmp_path.iterdir()}

    def check() -> bool:
        left = {path.name for path in tmp_path.iterdir()} - before - {"source.pt"}
        return not left

    return check
