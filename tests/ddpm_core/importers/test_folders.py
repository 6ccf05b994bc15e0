"""Folders in diffusers' form and repositories of the hub become bundles that make the pictures diffusers makes."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler
from huggingface_hub import constants
from safetensors.torch import save_file

from ddpm_core.errors import InvalidInput
from ddpm_core.importers import read_config

REPOSITORY = "google/ddpm-tiny-256"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
# What the folder does not say is not said by hand either.
NOTHING = {"image_size": None, "prediction_type": None, "schedule": None, "network": {}}


@pytest.fixture
def pipeline(unet):
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    return DDPMPipeline(unet, scheduler)


@pytest.fixture
def folder(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "pipeline")
    return tmp_path / "pipeline"


def holds(bundle, network):
    held = bundle.load_network().state_dict()
    return all(torch.equal(held[key], value) for key, value in network.state_dict().items())


def test_a_pipeline_says_all_that_is_needed(folder, unet, bring):
    bundle = bring(folder, **NOTHING)
    assert holds(bundle, unet)
    assert (bundle.manifest.image_size, bundle.manifest.prediction_type) == (16, "v_prediction")
    assert bundle.schedule.config["beta_schedule"] == "squaredcos_cap_v2"


def test_what_was_imported_is_again_a_pipeline_of_diffusers(folder, pipeline, bring):
    again = DDPMPipeline.from_pretrained(bring(folder, **NOTHING).path)
    x, t = torch.randn(1, 3, 16, 16), torch.tensor([500])
    with torch.no_grad():
        assert torch.allclose(again.unet(x, t).sample, pipeline.unet.eval()(x, t).sample, atol=1e-5)
    assert torch.allclose(again.scheduler.alphas_cumprod, pipeline.scheduler.alphas_cumprod)


def test_pickled_weights_are_read_too(pipeline, unet, tmp_path, bring):
    pipeline.save_pretrained(tmp_path / "old", safe_serialization=False)
    assert not list((tmp_path / "old").rglob("*.safetensors"))
    assert holds(bring(tmp_path / "old", **NOTHING), unet)


def test_weights_in_several_files_are_put_together(unet, folder, tmp_path, bring):
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet", max_shard_size="10KB")
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    assert holds(bring(folder, **NOTHING), unet)


def card(bundle):
    return (bundle.path / "README.md").read_text()


@pytest.fixture
def stale(unet, averaged):
    """The same network with other weights, as an earlier training left it in the folder."""
    other = type(unet).from_config(unet.config)
    other.load_state_dict(averaged)
    return other


def test_an_index_says_which_shards_count(unet, stale, folder, bring):
    shutil.rmtree(folder / "unet")
    stale.save_pretrained(folder / "old", max_shard_size="10KB")
    unet.save_pretrained(folder / "unet", max_shard_size="14KB")
    for shard in (folder / "old").glob("*.safetensors"):
        shutil.copy(shard, folder / "unet" / shard.name)
    shutil.rmtree(folder / "old")
    bundle = bring(folder, **NOTHING)
    assert holds(bundle, unet)
    assert "does not name were not read" in card(bundle)


def test_an_index_comes_before_a_file_alone_and_either_can_be_wished_for(unet, stale, folder, tmp_path, bring):
    unet.save_pretrained(tmp_path / "new", max_shard_size="10KB")
    stale.save_pretrained(folder / "unet")
    shutil.copytree(tmp_path / "new", folder / "unet", dirs_exist_ok=True)
    bundle = bring(folder, **NOTHING)
    assert holds(bundle, unet)
    assert "an index comes before a file alone" in card(bundle)
    shutil.rmtree(bundle.path)
    assert holds(bring(folder, **NOTHING, weights="diffusion_pytorch_model.safetensors"), stale)
    shutil.rmtree(bundle.path)
    with pytest.raises(InvalidInput, match="no weights called other; it has diffusion_pytorch_model"):
        bring(folder, **NOTHING, weights="other")


# How diffusers saves a network → a file that must then be there.
SAVED = {
    "pickled shards": ({"safe_serialization": False, "max_shard_size": "10KB"}, "*.bin.index.json"),
    "a variant alone": ({"variant": "fp16"}, "diffusion_pytorch_model.fp16.safetensors"),
    "shards of a variant": ({"variant": "fp16", "max_shard_size": "10KB"}, "*.index.fp16.json"),
}


@pytest.mark.parametrize(("how", "file"), SAVED.values(), ids=SAVED)
def test_whatever_diffusers_writes_is_read(how, file, unet, folder, bring):
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet", **how)
    assert list((folder / "unet").glob(file))
    assert holds(bring(folder, **NOTHING), unet)


def test_shards_without_an_index_are_read_when_they_are_one_whole_set(unet, folder, tmp_path, bring):
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet", max_shard_size="10KB")
    next((folder / "unet").glob("*.index.json")).unlink()
    bundle = bring(folder, **NOTHING)
    assert holds(bundle, unet)
    shutil.rmtree(bundle.path)
    next((folder / "unet").glob("*-00002-of-*")).unlink()
    with pytest.raises(InvalidInput, match="not one whole set"):
        bring(folder, **NOTHING)


@pytest.mark.parametrize(
    ("variant", "taken", "weights"), [("ema", "variant", "ema"), ("non_ema", "plain", "ema"), ("fp16", "plain", "raw")]
)
def test_of_variants_the_averaged_one_counts_and_then_the_whole_numbers(
    variant, taken, weights, unet, stale, folder, bring
):
    stale.save_pretrained(folder / "unet", variant=variant)
    bundle = bring(folder, **NOTHING)
    assert holds(bundle, stale if taken == "variant" else unet)
    assert bundle.manifest.weights == weights
    assert "`--weights` takes others" in card(bundle)


def test_a_folder_of_accelerate_is_a_checkpoint(unet, averaged, tmp_path, bring):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_file(unet.state_dict(), folder / "model.safetensors")
    torch.save({"state": {}}, folder / "optimizer.bin")
    bundle = bring(folder)
    assert holds(bundle, unet)
    shutil.rmtree(bundle.path)
    save_file(averaged, folder / "model_1.safetensors")
    with pytest.raises(InvalidInput, match=r"several networks.* under model\., model_1\..*--weights"):
        bring(folder)
    assert holds(bring(folder, weights="model"), unet)


def test_the_settings_that_save_config_wrote_can_be_said_by_hand(unet, tmp_path, bring):
    unet.save_config(tmp_path)
    (tmp_path / "said.json").write_text(json.dumps({"network": json.loads((tmp_path / "config.json").read_text())}))
    said = read_config(tmp_path / "said.json")
    assert holds(bring({"model": unet.state_dict()}, network=said["network"]), unet)


def test_a_size_may_be_two_equal_numbers(folder, unet, bring):
    edit(folder / "unet" / "config.json", sample_size=[16, 16])
    assert bring(folder, **NOTHING).manifest.image_size == 16


def test_averaged_weights_beside_the_raw_ones_are_taken(unet, averaged, folder, bring):
    shutil.copytree(folder / "unet", folder / "unet_ema")
    unet.load_state_dict(averaged)
    unet.save_pretrained(folder / "unet_ema")
    bundle = bring(folder, **NOTHING)
    assert holds(bundle, unet)
    assert bundle.manifest.weights == "ema"


def test_a_unet_alone_leaves_its_schedule_open(unet, tmp_path, bring):
    unet.save_pretrained(tmp_path / "alone")
    with pytest.raises(InvalidInput, match=r"--schedule .*--prediction-type"):
        bring(tmp_path / "alone", **NOTHING)
    assert holds(bring(tmp_path / "alone", **{**NOTHING, "schedule": "linear", "prediction_type": "epsilon"}), unet)


def test_another_sampler_of_the_same_process_is_no_obstacle(unet, folder, bring):
    DDIMScheduler(beta_end=0.01).save_pretrained(folder / "scheduler")
    bundle = bring(folder, **NOTHING)
    assert bundle.schedule.config["beta_end"] == 0.01
    assert DDPMPipeline.from_pretrained(bundle.path).scheduler.config.beta_end == 0.01


@pytest.fixture
def hub(unet, tmp_path, monkeypatch):
    """A hub cache as `google/ddpm-celebahq-256` leaves it: no network, its files at the root, the weights pickled."""
    cache = tmp_path / "hub"
    repository = cache / f"models--{REPOSITORY.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    unet.save_pretrained(snapshot, safe_serialization=False)
    DDPMScheduler().save_pretrained(snapshot)
    (snapshot / "model_index.json").write_text(
        json.dumps(
            {
                "_class_name": "DDPMPipeline",
                "scheduler": ["diffusers", "DDPMScheduler"],
                "unet": ["diffusers", "UNet2DModel"],
            }
        )
    )
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("hub")
def test_a_repository_of_the_hub_is_taken_from_its_cache_without_a_network(unet, bring):
    bundle = bring(REPOSITORY, **NOTHING, domain="human_face")
    assert holds(bundle, unet)
    assert bundle.manifest.prediction_type == "epsilon"
    assert bundle.manifest.provenance["source"] == REPOSITORY
    assert bundle.manifest.provenance["revision"] == COMMIT
    assert REPOSITORY in (bundle.path / "README.md").read_text()


@pytest.mark.usefixtures("hub")
def test_a_repository_may_be_named_with_its_revision_and_the_checksum_of_its_weights(unet, bring, tmp_path):
    (weights,) = (tmp_path / "hub").rglob("*.bin")
    named = f"{REPOSITORY}@{COMMIT}"
    with pytest.raises(InvalidInput, match="is not the file that was named") as refusal:
        bring(named, **NOTHING, sha256="0" * 64)
    assert refusal.value.field == "sha256"
    with pytest.raises(InvalidInput, match=f"no file or folder {REPOSITORY}@{'1' * 40}"):
        bring(f"{REPOSITORY}@{'1' * 40}", **NOTHING)
    bundle = bring(named, **NOTHING, sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
    assert holds(bundle, unet)
    assert bundle.manifest.provenance["source"] == REPOSITORY
    assert bundle.manifest.provenance["revision"] == COMMIT


@pytest.mark.usefixtures("hub")
def test_a_repository_that_the_hub_does_not_give_is_named(bring, nothing_is_left):
    with pytest.raises(InvalidInput, match="no file or folder nobody/nothing, and the Hugging Face hub") as refusal:
        bring("nobody/nothing", **NOTHING)
    assert refusal.value.code == "hub_failed"


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


BROKEN = {
    "no network": (lambda f: shutil.rmtree(f / "unet"), "no config.json"),
    "no weights": (lambda f: next((f / "unet").glob("*.safetensors")).unlink(), "neither diffusion_pytorch_model"),
    "cut weights": (
        lambda f: (file := next((f / "unet").glob("*.safetensors"))).write_bytes(file.read_bytes()[:-9]),
        "was not read",
    ),
    "no JSON": (lambda f: (f / "unet" / "config.json").write_text("{"), "config.json is not JSON"),
    "latent": (lambda f: (f / "vqvae").mkdir(), "has a vqvae"),
    "text to image": (
        lambda f: edit(f / "unet" / "config.json", _class_name="UNet2DConditionModel"),
        "UNet2DConditionModel is not known",
    ),
    "another process": (
        lambda f: edit(f / "scheduler" / "scheduler_config.json", _class_name="ScoreSdeVeScheduler"),
        "trained for ScoreSdeVeScheduler",
    ),
    "learned variance": (
        lambda f: edit(f / "scheduler" / "scheduler_config.json", variance_type="learned_range"),
        "variance_type = learned_range",
    ),
    "classes": (lambda f: edit(f / "unet" / "config.json", num_class_embeds=3), "conditioned on classes"),
    "twice the channels": (lambda f: edit(f / "unet" / "config.json", out_channels=6), "learned variance"),
    "six channels": (lambda f: edit(f / "unet" / "config.json", in_channels=6), "input is concatenated"),
    "an index of another place": (
        lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(
            '{"weight_map": {"conv_in.bias": "../../secret.safetensors"}}'
        ),
        "it is no index of weights",
    ),
    "an index of more": (
        lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(
            '{"weight_map": {"conv_in.scale": "diffusion_pytorch_model.safetensors"}}'
        ),
        "conv_in.scale lies in diffusion_pytorch_model.safetensors, which does not hold it",
    ),
    "another size": (lambda f: edit(f / "unet" / "config.json", layers_per_block=2), "missing keys: down_blocks"),
    "a bundle": (lambda f: (f / "bundle.json").write_text("{}"), "a bundle already"),
}


@pytest.mark.parametrize(("spoil", "message"), BROKEN.values(), ids=BROKEN)
def test_a_folder_that_cannot_be_served_says_why_and_leaves_nothing(spoil, message, folder, bring, nothing_is_left):
    spoil(folder)
    with pytest.raises(InvalidInput, match=message):
        bring(folder, **NOTHING)
    assert nothing_is_left()
