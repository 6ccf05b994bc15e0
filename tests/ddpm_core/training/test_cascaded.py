"""A cascade begins as a finished model of half the side, which it keeps, and learns the detail to it."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ddpm_core.bands import haar
from ddpm_core.bundle import MANIFEST, WEIGHTS, read_bundle, sha256
from ddpm_core.bundle.files import COARSE_WEIGHTS, write_json
from ddpm_core.errors import InvalidInput
from ddpm_core.pipeline import load
from ddpm_core.training import run
from ddpm_core.training.export import export
from ddpm_core.training.loop import Limits

UNET = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
}
ONE, TWO = ({"class": name, **UNET} for name in ("UNet2DModel", "CascadedUNet"))


@pytest.fixture(scope="module")
def small(tmp_path_factory, pictures, tiny):
    """A checkpoint of a model of half the side."""
    out = tmp_path_factory.mktemp("small") / "run"
    run.train(pictures, out, tiny(image_size=8, network=ONE), Limits(max_steps=4))
    return out / "last"


@pytest.fixture(scope="module")
def cascaded(tmp_path_factory, pictures, tiny, small):
    """A run of a cascade, some steps from its beginning."""
    out = tmp_path_factory.mktemp("cascaded") / "run"
    run.train(pictures, out, tiny(bands=1, network=TWO, init=str(small), ema_half_life=0, checkpoint_every=1))
    return out


def weights_of(path):
    return read_bundle(path).load_network().state_dict()


def denoiser_of(path):
    bundle = read_bundle(path)
    return bundle, bundle.denoiser(bundle.load_network().eval(), torch.device("cpu"), torch.float32)


def test_the_coarse_band_is_the_finished_model_s_as_long_as_detail_is_learnt(small, cascaded):
    (half, parent), (whole, child) = denoiser_of(small), denoiser_of(cascaded / "last")
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    level = torch.tensor([1, 200, 600, 1000])
    a, a_half = (torch.tensor(each.schedule.alpha_bar[level]).view(-1, 1, 1, 1) for each in (whole, half))
    with torch.inference_mode():
        seen = haar(x)[:, :3] / 2 * (a_half / a).sqrt().float()
        assert torch.allclose(haar(child(x, level))[:, :3], 2 * parent(seen, level), atol=1e-3)


def test_the_network_for_detail_begins_with_what_the_finished_one_sees_and_draws_nothing(
    pictures, tiny, small, tmp_path
):
    recipe = tiny(bands=1, network=TWO, init=str(small), learning_rate=1e-9, ema_half_life=0)
    run.train(pictures, tmp_path / "run", recipe, Limits(max_steps=1))
    parent, child = weights_of(small), weights_of(tmp_path / "run" / "last")
    middle = "mid_block.resnets.0.conv1.weight"
    assert torch.allclose(child[f"detail.{middle}"], parent[middle], atol=1e-6)
    assert torch.allclose(child["detail.conv_in.weight"][:, :3], parent["conv_in.weight"], atol=1e-6)
    assert child["detail.conv_out.weight"].abs().max() < 1e-6


def test_only_detail_is_trained(small, cascaded):
    parent, child = weights_of(small), weights_of(cascaded / "last")
    assert all(torch.equal(child[f"coarse.{key}"], weight) for key, weight in parent.items())
    assert child["detail.conv_out.weight"].abs().max() > 1e-4


def test_a_model_of_half_the_side_begins_with_its_coarse_network(small, cascaded, pictures, tiny, tmp_path):
    recipe = tiny(image_size=8, network=ONE, init=str(cascaded / "last"), learning_rate=1e-9, ema_half_life=0)
    run.train(pictures, tmp_path / "run", recipe, Limits(max_steps=1))
    before, after = weights_of(small), weights_of(tmp_path / "run" / "last")
    assert all(torch.allclose(after[key], weight, atol=1e-6) for key, weight in before.items())


def test_a_run_of_it_goes_on(cascaded):
    before = weights_of(cascaded / "last")
    run.resume(cascaded, ["steps=10"])
    after = weights_of(cascaded / "last")
    assert all(torch.equal(after[key], before[key]) for key in before if key.startswith("coarse."))
    assert not torch.equal(after["detail.conv_out.weight"], before["detail.conv_out.weight"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_makes_pictures_like_any_model(cascaded, tmp_path, dtype):
    bundle = export(cascaded / "last", tmp_path / "model", "1.0")
    assert bundle.load_network().config["_class_name"] == "CascadedUNet"
    made = load(bundle.path, dtype=dtype)(num_images=2, seed=1, num_inference_steps=3).images
    assert [image.size for image in made] == [(16, 16)] * 2


def test_its_coarse_weights_may_be_a_link_to_those_of_the_model_that_they_are_from(small, cascaded, tmp_path):
    whole = export(cascaded / "last", tmp_path / "whole", "1.0")
    apart = tmp_path / "apart"
    shutil.copytree(whole.path, apart)
    weights = load_file(apart / WEIGHTS)
    save_file({key: weight for key, weight in weights.items() if not key.startswith("coarse.")}, apart / WEIGHTS)
    (apart / COARSE_WEIGHTS).parent.mkdir()
    (apart / COARSE_WEIGHTS).symlink_to(small / WEIGHTS)
    sums = whole.manifest.checksums | {name: sha256(apart / name) for name in (WEIGHTS, COARSE_WEIGHTS)}
    write_json(apart / MANIFEST, whole.manifest.model_copy(update={"checksums": sums}).model_dump(mode="json"))
    parent, after = weights_of(small), weights_of(apart)
    assert all(torch.equal(after[f"coarse.{key}"], weight) for key, weight in parent.items())
    assert after.keys() == weights.keys()

    (apart / COARSE_WEIGHTS).unlink()
    with pytest.raises(InvalidInput, match="coarse is not a usable bundle"):
        weights_of(apart)


def test_without_bands_there_is_no_cascade(pictures, tmp_path, tiny):
    with pytest.raises(InvalidInput, match="needs bands: 1"):
        run.train(pictures, tmp_path / "run", tiny(network=TWO))
