"""Every kind of model that can be imported is imported, packed and served by the same handler."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from PIL import Image
from typer.testing import CliRunner

from ddpm_core.unet import AttentionUNet
from ddpm_service.archive import pack
from ddpm_service.cli import app
from ddpm_service.torchserve.management import Management

pytestmark = pytest.mark.torchserve

OWN_NETWORK = """
import torch

class Own(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inside = torch.nn.Conv2d(3, width, 3, padding=1)
        self.outside = torch.nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x, timestep):
        return self.outside(torch.relu(self.inside(x)))
"""
SAID = ["--image-size", "16", "--prediction-type", "epsilon", "--schedule", "cosine"]


def unet() -> UNet2DModel:
    return UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        layers_per_block=1,
    )


def config(folder: Path, **network: int) -> list[str]:
    file = folder / "said.json"
    file.write_text(json.dumps({"network": network}))
    return ["--config", str(file)]


def diffusers_folder(folder: Path) -> list[str]:
    DDPMPipeline(unet(), DDPMScheduler()).save_pretrained(folder / "pipeline")
    return [str(folder / "pipeline")]


def state_dict(folder: Path) -> list[str]:
    torch.save(AttentionUNet(widths=(8, 8), middle=8, heads=2).state_dict(), folder / "dogs.pt")
    return [str(folder / "dogs.pt"), *SAID, *config(folder, heads=2)]


def training_checkpoint(folder: Path) -> list[str]:
    weights = {f"ema_model.model.{key}": value for key, value in unet().state_dict().items()}
    torch.save({"step": 7, "model": unet().state_dict(), "ema": weights}, folder / "last.ckpt")
    return [str(folder / "last.ckpt"), *SAID, *config(folder, norm_num_groups=4, attention_head_dim=8)]


def full_model(folder: Path) -> list[str]:
    torch.save(unet(), folder / "model.pth")
    return [str(folder / "model.pth"), "--prediction-type", "v_prediction", "--schedule", "linear"]


def own_code(folder: Path) -> list[str]:
    (folder / "own.py").write_text(OWN_NETWORK)
    names: dict = {}
    exec(OWN_NETWORK, names)
    torch.save(names["Own"](4).state_dict(), folder / "own.pt")
    code = ["--model-file", str(folder / "own.py"), "--network", "Own"]
    return [str(folder / "own.pt"), *SAID, *config(folder, width=4), *code]


@pytest.mark.parametrize(
    "source", [diffusers_folder, state_dict, training_checkpoint, full_model, own_code], ids=lambda f: f.__name__
)
def test_what_was_imported_is_served(source: Callable[[Path], list[str]], torchserve, store, tmp_path, selfie):
    name = source.__name__.replace("_", "-")
    bundle = tmp_path / "models" / name / "1.0"

    done = CliRunner().invoke(app, ["import", *source(tmp_path), "--out", str(bundle), "--domain", "human_face"])
    assert done.exit_code == 0, done.stderr
    archive = pack(bundle, store)
    management = Management(torchserve.management_url)
    management.register(archive.name)
    try:
        answer = requests.post(
            f"{torchserve.inference_url}/predictions/{name}",
            data=selfie,
            headers={"Accept": "image/png"},
            timeout=60,
        )
        again = requests.post(
            f"{torchserve.inference_url}/predictions/{name}",
            json={"seed": 3, "num_inference_steps": 4},
            headers={"Accept": "image/png"},
            timeout=60,
        )
    finally:
        management.unregister(name, "1.0")

    assert answer.status_code == again.status_code == 200, answer.text
    assert Image.open(io.BytesIO(again.content)).size == (16, 16)
    with zipfile.ZipFile(archive) as packed:
        assert ("bundle/own.py" in packed.namelist()) == (source is own_code)
