"""A run on bands begins as a model of half the side, and learns detail."""

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_core.bands import haar
from ddpm_core.bundle import read_bundle
from ddpm_core.errors import InvalidInput
from ddpm_core.training import run
from ddpm_core.training.export import export
from ddpm_core.training.loop import Limits


@pytest.fixture(scope="module")
def small(tmp_path_factory, pictures, tiny):
    """A checkpoint of a model of half the side."""
    out = tmp_path_factory.mktemp("small") / "run"
    run.train(pictures, out, tiny(image_size=8), Limits(max_steps=4))
    return out / "last"


@pytest.fixture(scope="module")
def banded(tmp_path_factory, pictures, tiny, small):
    """A run of a model of twice the side that has hardly moved from its beginning."""
    out = tmp_path_factory.mktemp("banded") / "run"
    recipe = tiny(bands=1, init=str(small), learning_rate=1e-9, ema_half_life=0)
    run.train(pictures, out, recipe, Limits(max_steps=1))
    return out


def denoiser_of(path):
    bundle = read_bundle(path)
    return bundle, bundle.denoiser(bundle.load_network().eval(), torch.device("cpu"), torch.float32)


def test_before_the_first_step_it_predicts_what_half_the_side_does(small, banded):
    (half, parent), (whole, child) = denoiser_of(small), denoiser_of(banded / "last")
    assert whole.shape == (3, 16, 16)
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    level = torch.tensor([1, 200, 600, 1000])
    a, a_half = (torch.tensor(each.schedule.alpha_bar[level]).view(-1, 1, 1, 1) for each in (whole, half))
    with torch.inference_mode():
        coarse = haar(child(x, level))[:, :3]
        seen = haar(x)[:, :3] / 2 * (a_half / a).sqrt().float()
        assert torch.allclose(coarse, 2 * parent(seen, level), atol=1e-3)


def test_the_spread_of_the_training_images_is_written_down_and_stays(banded, tmp_path):
    before = read_bundle(banded / "last").manifest.bands
    assert before is not None
    assert all(0 < spread < 1 for spread in before.spread)
    run.resume(banded, limits=Limits(max_steps=2))
    assert read_bundle(banded / "last").manifest.bands == before
    bundle = export(banded / "last", tmp_path / "model", "1.0")
    assert "plain diffusers cannot sample it" in (bundle.path / "README.md").read_text(encoding="utf-8")
    assert read_bundle(bundle.path).schedule.alpha_bar == pytest.approx(bundle.schedule.alpha_bar)


def test_detail_is_learnt(pictures, tmp_path, tiny):
    rows = []
    recipe = tiny(bands=1, steps=30, learning_rate=2e-3, checkpoint_every=0, validate_every=0)
    run.train(pictures, tmp_path / "run", recipe, report=rows.append)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"image_size": 32}, "makes pictures of 8 px; bands begin with 16 px"),
        ({"network": {"class": "AttentionUNet", "widths": [16, 16], "middle": 8, "heads": 2}}, "wrong shapes"),
        ({"image_size": 14, "patch": 2, "init": ""}, "image_size must be a multiple of 2 · patch = 4 with bands"),
        ({"prediction": "epsilon", "init": ""}, "prediction must be v_prediction with bands"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(pictures, small, tmp_path, tiny, change, why):
    with pytest.raises(InvalidInput) as caught:
        run.train(pictures, tmp_path / "run", tiny(**{"bands": 1, "init": str(small), **change}))
    assert why in caught.value.message


def test_pictures_without_detail_are_refused(tmp_path, tiny):
    for i in range(4):
        (tmp_path / "flat").mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (40 * i, 90, 10)).save(tmp_path / "flat" / f"{i}.png")
    with pytest.raises(InvalidInput, match="detail"):
        run.train(tmp_path / "flat", tmp_path / "run", tiny(bands=1))
