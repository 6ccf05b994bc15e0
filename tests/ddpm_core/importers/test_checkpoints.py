"""Checkpoint files in all their shapes become the same bundle; what is wrong or open is named, and nothing is left."""

from __future__ import annotations

import json
import shutil
from collections import OrderedDict

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, UNet2DModel
from diffusers.training_utils import EMAModel
from safetensors.torch import save_file

from ddpm_core import schedule
from ddpm_core.errors import InvalidInput
from ddpm_core.importers import Schedule
from ddpm_core.unet import AttentionUNet


def under(prefix, weights):
    return {prefix + key: value for key, value in weights.items()}


def holds(bundle, weights):
    """Whether a bundle's network has exactly these weights."""
    held = bundle.load_network().state_dict()
    return held.keys() == weights.keys() and all(torch.equal(held[key], weights[key]) for key in held)


class Diffusion(torch.nn.Module):
    """What many trainers wrap around a network: the schedule's tables, and the network under a name."""

    def __init__(self, network, noise_schedule):
        super().__init__()
        self.model = network
        self.image_size = (16, 16)
        self.objective = "pred_v"
        self.register_buffer("alphas_cumprod", torch.tensor(noise_schedule.alpha_bar[1:]).float())
        self.register_buffer("cache", torch.zeros(2), persistent=False)


# How well-known trainers call a network's weights.
WRAPPERS = {
    "a state dict": lambda w: w,
    "an ordered one": OrderedDict,
    "DataParallel": lambda w: under("module.", w),
    "torch.compile": lambda w: under("_orig_mod.", w),
    "compiled, then DataParallel": lambda w: under("module._orig_mod.", w),
    "a checkpoint": lambda w: {"epoch": 3, "model_state_dict": w, "loss": 0.1},
    "Lightning, model": lambda w: {
        "state_dict": under("model.", w),
        "hyper_parameters": {"lr": 1e-4},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}}],
    },
    "Lightning, net": lambda w: {"state_dict": under("net.", w), "pytorch-lightning_version": "2.5"},
    "Accelerate": lambda w: {"model": under("module.", w), "optimizer": {"state": {}}, "step": torch.tensor(7)},
    "any other": lambda w: {"generator": under("diffusion.denoise_fn.", w), "scale": torch.ones(1)},
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_the_weights_are_found_whatever_stands_before_their_names(wrap, unet, bring):
    bundle = bring(wrap(unet.state_dict()))
    assert holds(bundle, unet.state_dict())
    assert bundle.manifest.weights == "raw"


AVERAGED = {
    "beside": lambda raw, ema: {"model": raw, "ema": ema},
    "as a state dict": lambda raw, ema: {"model_state_dict": raw, "ema_state_dict": ema},
    "ema_model": lambda raw, ema: {"model": raw, "ema_model": under("module.", ema)},
    "in one table": lambda raw, ema: {**under("model.", raw), **under("model_ema.", ema)},
    "inside the raw one": lambda raw, ema: {**raw, **under("ema.", ema)},
    "ema.ema_model": lambda raw, ema: {
        "model": under("model.", raw),
        "ema": {**under("online_model.model.", raw), **under("ema_model.model.", ema), "initted": torch.ones(1)},
    },
    "Lightning": lambda raw, ema: {"state_dict": {**under("net.", raw), **under("ema.ema_model.", ema)}},
    "only averaged": lambda raw, ema: {"params_ema": ema},
    "emaModel": lambda raw, ema: {"model": raw, "emaModel": ema},
    "model_avg": lambda raw, ema: {"model": raw, "model_avg": ema},
    "swa_model": lambda raw, ema: {"model": raw, "swa_model": {"n_averaged": torch.ones(1), **under("module.", ema)}},
    "average_model": lambda raw, ema: {"model": raw, "average_model": ema},
    "moving_average": lambda raw, ema: {"model": raw, "moving_average": ema},
    "emas": lambda raw, ema: {"net": raw, "emas": [ema]},
    "LitEma": lambda raw, ema: {
        "state_dict": {
            **under("model.diffusion_model.", raw),
            **{"model_ema." + f"diffusion_model.{key}".replace(".", ""): value for key, value in ema.items()},
            "model_ema.decay": torch.tensor(0.9999),
        }
    },
}


@pytest.mark.parametrize("wrap", AVERAGED.values(), ids=AVERAGED)
def test_averaged_weights_are_taken_where_there_are_some(wrap, unet, averaged, bring):
    bundle = bring(wrap(unet.state_dict(), averaged))
    assert holds(bundle, averaged)
    assert bundle.manifest.weights == "ema"
    assert "averaged (EMA)" in (bundle.path / "README.md").read_text()


def test_the_moments_of_an_optimizer_are_no_averaged_weights(unet, averaged, bring):
    bundle = bring({"model": unet.state_dict(), "optimizer": {"exp_avg": averaged}})
    assert holds(bundle, unet.state_dict())
    assert "under `model.`: raw ones; none are named as averaged." in (bundle.path / "README.md").read_text()


def test_a_file_may_be_named_as_averaged_and_one_beside_it_is_told(unet, averaged, tmp_path, bring):
    torch.save(unet.state_dict(), tmp_path / "model100.pt")
    torch.save(averaged, tmp_path / "ema_0.9999_100.pt")
    bundle = bring(tmp_path / "model100.pt")
    assert bundle.manifest.weights == "raw"
    assert "were not used: `ema_0.9999_100.pt`" in (bundle.path / "README.md").read_text()
    shutil.rmtree(bundle.path)
    assert bring(tmp_path / "ema_0.9999_100.pt").manifest.weights == "ema"


def test_what_is_named_as_averaged_and_not_used_is_told(unet, bring):
    bundle = bring({"model": unet.state_dict(), "model_ema": {"convin": torch.ones(2), "decay": torch.ones(1)}})
    card = (bundle.path / "README.md").read_text()
    assert "`model_ema.` (2)" in card
    assert "none are named as averaged" not in card


def test_between_networks_of_the_same_names_one_is_asked_for(unet, averaged, bring, nothing_is_left):
    both = {"first": unet.state_dict(), "second": averaged}
    with pytest.raises(InvalidInput, match=r"under first\., second\.. Please say which: --weights") as question:
        bring(both)
    assert question.value.field == "--weights"
    assert nothing_is_left()
    assert holds(bring(both, weights="second"), averaged)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"out_channels": 6}, "learned_variance"),
        ({"num_class_embeds": 3}, "class_embeddings"),
        ({"in_channels": 6}, "concatenated_input"),
    ],
    ids=str,
)
def test_a_network_for_another_task_is_refused_by_its_name(settings, code, unet, bring, nothing_is_left):
    other = UNet2DModel.from_config(unet.config, **settings)
    with pytest.raises(InvalidInput, match="cannot be served") as refusal:
        bring(other.state_dict())
    assert refusal.value.code == code
    assert nothing_is_left()


def test_averaged_weights_without_names_are_matched_in_order(unet, averaged, bring):
    other = UNet2DModel.from_config(unet.config)
    other.load_state_dict(averaged)
    ema = EMAModel(other.parameters())
    bundle = bring({"unet": unet.state_dict(), "ema": ema.state_dict()})
    assert holds(bundle, averaged)
    assert bundle.manifest.weights == "ema"


def test_a_whole_pickled_diffusers_model_says_its_settings_itself(unet, bring):
    bundle = bring(unet, network={}, image_size=None)
    assert holds(bundle, unet.state_dict())
    assert bundle.manifest.image_size == 16


def test_a_whole_pickled_diffusion_says_its_schedule_size_and_prediction(dogs, bring):
    bundle = bring(Diffusion(dogs, schedule.cosine()), network={"heads": 2}, image_size=None, schedule=None,
                   prediction_type=None)  # fmt: skip
    assert holds(bundle, dogs.state_dict())
    assert (bundle.manifest.image_size, bundle.manifest.prediction_type) == (16, "v_prediction")
    assert bundle.schedule.config["beta_schedule"] == "squaredcos_cap_v2"
    assert np.allclose(bundle.schedule.alpha_bar, schedule.cosine().alpha_bar)


def test_a_schedule_without_a_name_is_taken_number_by_number(unet, bring):
    betas = torch.linspace(1e-3, 0.05, 200, dtype=torch.float64)
    bundle = bring({"betas": betas, **under("model.", unet.state_dict())}, schedule=None)
    assert np.allclose(bundle.schedule.alpha_bar[1:], np.cumprod(1 - betas.numpy()))
    pipeline = DDPMPipeline.from_pretrained(bundle.path)
    assert np.allclose(pipeline.scheduler.alphas_cumprod, bundle.schedule.alpha_bar[1:], rtol=1e-4)


def test_what_is_said_by_hand_wins(unet, bring):
    bundle = bring({"betas": torch.linspace(1e-3, 0.05, 200), **under("model.", unet.state_dict())},
                   schedule=Schedule.COSINE)  # fmt: skip
    assert np.allclose(bundle.schedule.alpha_bar, schedule.cosine().alpha_bar)


def schedule_rows(bundle):
    """Who said what about the schedule, and the sentences about it, in a bundle's card."""
    lines = (bundle.path / "README.md").read_text().splitlines()
    return [line for line in lines if "beta_" in line or "num_train" in line or "schedule was read" in line]


def test_the_levels_said_by_hand_win_over_those_of_a_named_schedule(unet, bring):
    bundle = bring(unet.state_dict(), scheduler={"num_train_timesteps": 500})
    assert np.allclose(bundle.schedule.alpha_bar, schedule.linear(500).alpha_bar)
    assert schedule_rows(bundle) == [
        "| `num_train_timesteps` | 500 | the one who imported it |",
        "| `beta_schedule` | linear | the one who imported it |",
    ]


def test_a_curve_said_by_hand_wins_over_the_table_of_the_source(unet, bring):
    said = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    bundle = bring({"betas": torch.linspace(1e-3, 0.05, 200), **under("model.", unet.state_dict())},
                   schedule=None, scheduler=said)  # fmt: skip
    expected = schedule.from_diffusers({**said, "num_train_timesteps": 200})
    assert np.allclose(bundle.schedule.alpha_bar, expected.alpha_bar)
    assert schedule_rows(bundle) == [
        "| `beta_schedule` | scaled_linear | the one who imported it |",
        "| `beta_start` | 0.00085 | the one who imported it |",
        "| `beta_end` | 0.012 | the one who imported it |",
        "| `num_train_timesteps` | 200 | the source |",
    ]


@pytest.mark.parametrize("levels", [200, None])
def test_the_table_of_the_source_stays_where_nothing_by_hand_contradicts_it(levels, unet, bring):
    betas = torch.linspace(1e-3, 0.05, 200, dtype=torch.float64)
    said = {} if levels is None else {"num_train_timesteps": levels}
    bundle = bring({"betas": betas, **under("model.", unet.state_dict())}, schedule=None, scheduler=said)
    assert np.allclose(bundle.schedule.alpha_bar[1:], np.cumprod(1 - betas.numpy()))
    assert "- The schedule was read from `betas`, number by number." in schedule_rows(bundle)


def test_two_schedules_said_by_hand_are_refused(unet, bring, nothing_is_left):
    with pytest.raises(InvalidInput, match="--schedule linear and the beta_schedule of --config are two schedules"):
        bring(unet.state_dict(), scheduler={"beta_schedule": "scaled_linear"})
    assert nothing_is_left()


SHAPES = [
    {"in_channels": 1, "out_channels": 1},
    {"layers_per_block": 2},
    {"resnet_time_scale_shift": "scale_shift", "block_out_channels": (4, 8, 8),
     "down_block_types": ("AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
     "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D"), "attention_head_dim": 4},
    {"downsample_type": "resnet", "upsample_type": "resnet"},
    {"time_embedding_type": "fourier"},
    {"add_attention": False, "down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2},
]  # fmt: skip


@pytest.mark.parametrize("settings", SHAPES, ids=lambda s: ", ".join(s))
def test_the_settings_of_a_unet_are_read_off_its_weights(settings, unet, bring):
    other = UNet2DModel.from_config(unet.config, **settings)
    head = settings.get("attention_head_dim", 8)
    bundle = bring(other.state_dict(), network={"norm_num_groups": 4, "attention_head_dim": head})
    rebuilt = bundle.load_network()
    assert holds(bundle, other.state_dict())
    x, t = torch.randn(1, other.config.in_channels, 16, 16), torch.tensor([7])
    with torch.no_grad():
        assert torch.allclose(rebuilt(x, t).sample, other.eval()(x, t).sample, atol=1e-5)


def test_the_dogs_network_is_known_with_its_heads():
    from ddpm_core.importers.shapes import infer

    with torch.device("meta"):
        weights = AttentionUNet().state_dict()
    inferred = infer(weights)
    assert inferred.settings == dict(AttentionUNet().config)
    assert inferred.open == {}


def test_attention_weights_under_their_former_names_are_found(unet, bring):
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = {}
    for key, value in unet.state_dict().items():
        for new, old in former.items():
            key = key.replace(f".{new}.", f".{old}.")
        weights[key] = value
    assert weights.keys() != unet.state_dict().keys()
    assert holds(bring(weights), unet.state_dict())


def test_sixteen_bit_weights_stay_sixteen_bit(unet, bring):
    half = {key: value.half() for key, value in unet.state_dict().items()}
    bundle = bring(half)
    assert holds(bundle, {key: value.float() for key, value in half.items()})
    weights = bundle.path / "unet" / "diffusion_pytorch_model.safetensors"
    assert weights.stat().st_size < 2.5 * sum(value.numel() for value in half.values()) + 20_000


def test_safetensors_are_a_checkpoint_too(unet, bring, tmp_path):
    save_file(unet.state_dict(), tmp_path / "model.safetensors")
    assert holds(bring(tmp_path / "model.safetensors"), unet.state_dict())


def test_a_bundle_says_where_it_comes_from_and_who_said_what(unet, bring):
    bundle = bring(unet.state_dict(), terms="Mine alone.")
    card = (bundle.path / "README.md").read_text()
    assert bundle.manifest.provenance["source"] == "source.pt"
    assert "Mine alone." in card
    assert "| `block_out_channels` | [8, 16] | the shapes of the weights |" in card
    assert "| `norm_num_groups` | 4 | the one who imported it |" in card
    assert (bundle.path / "sample.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("unsaid", "asked"),
    [
        ({"image_size": None}, ["--image-size (8..2048, a multiple of 2)"]),
        ({"prediction_type": None}, ["--prediction-type (epsilon, v_prediction or sample)"]),
        ({"schedule": None}, ["--schedule (linear or cosine"]),
        ({"network": {}}, ['"norm_num_groups": …}} (one of 1, 2, 4, 8)', '"attention_head_dim": …}} (one of 1, 2, 4']),
        ({"image_size": None, "schedule": None}, ["--image-size", "--schedule"]),
    ],
    ids=["size", "prediction", "schedule", "network", "two"],
)
def test_what_the_weights_cannot_say_is_asked_for_by_name(unsaid, asked, unet, bring, nothing_is_left):
    with pytest.raises(InvalidInput) as question:
        bring(unet.state_dict(), **unsaid)
    assert question.value.code == "answer_needed"
    for each in asked:
        assert each in question.value.message
    assert nothing_is_left()


def test_the_heads_of_an_attention_unet_are_asked_for(dogs, bring):
    with pytest.raises(InvalidInput, match=r'"heads": …}} \(one of 1, 2, 4, 8\)'):
        bring(dogs.state_dict(), network={})


WRONG = {
    "a landmark is missing": (lambda w: w.pop("mid_block.resnets.0.conv1.weight"), "mid_block.resnets.0.conv1.weight"),
    "a weight is missing": (lambda w: w.pop("conv_in.bias"), "1 missing keys: conv_in.bias"),
    "a whole block is missing": (
        lambda w: [w.pop(key) for key in list(w) if key.startswith("up_blocks.1.")],
        "up_blocks.1.",
    ),
    "one too many": (lambda w: w.update({"conv_in.scale": torch.ones(1)}), "1 unexpected keys: conv_in.scale"),
    "a shape": (lambda w: w.update({"conv_in.bias": torch.ones(5)}), r"conv_in.bias (5,) instead of (8,)"),
    "not finite": (lambda w: w["conv_in.bias"].fill_(float("nan")), "not finite: conv_in.bias"),
}


@pytest.mark.parametrize(("change", "named"), WRONG.values(), ids=WRONG)
def test_a_wrong_or_incomplete_checkpoint_names_the_keys_and_leaves_nothing(
    change, named, unet, bring, nothing_is_left
):
    weights = {key: value.clone() for key, value in unet.state_dict().items()}
    change(weights)
    with pytest.raises(InvalidInput) as refusal:
        bring(under("module.", weights))
    assert named in refusal.value.message
    assert nothing_is_left()


@pytest.mark.parametrize(
    ("source", "said", "message"),
    [
        ({"encoder.weight": torch.ones(2)}, {}, "--model-file FILE.py --network NAME"),
        ({"epoch": 3}, {}, "holds no tensors"),
        ("no-such-file.pt", {}, "no-such-file.pt"),
        ("no-such-thing", {}, "neither a folder, nor a repository"),
    ],
    ids=["another network", "no tensors", "no file", "nothing"],
)
def test_what_cannot_be_imported_says_why(source, said, message, bring, nothing_is_left):
    with pytest.raises((InvalidInput, OSError), match=message):
        bring(source, **said)
    assert nothing_is_left()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"network": {"norm_groups": 4}}, "UNet2DModel has no setting norm_groups"),
        ({"network": {"norm_num_groups": 5, "attention_head_dim": 8}}, "cannot be made with the settings"),
        ({"image_size": 15}, "no image could be made"),
        ({"name": "Not A Name"}, "name = 'Not A Name' is not possible"),
        ({"domain": "dogs"}, "domain = 'dogs' is not possible"),
        ({"scheduler": {"beta_schedule": "sigmoid"}, "schedule": None}, "beta_schedule = sigmoid is not supported"),
    ],
    ids=["setting", "groups", "size", "name", "domain", "schedule"],
)
def test_an_answer_that_cannot_be_is_refused_and_nothing_is_left(said, message, unet, bring, nothing_is_left):
    with pytest.raises(InvalidInput, match=message):
        bring(unet.state_dict(), **said)
    assert nothing_is_left()


def test_a_bundle_that_exists_is_never_touched(unet, bring):
    bundle = bring(unet.state_dict())
    before = (bundle.path / "bundle.json").read_bytes()
    with pytest.raises(InvalidInput, match="exists already"):
        bring(unet.state_dict(), domain="cat_face")
    assert (bundle.path / "bundle.json").read_bytes() == before
    assert json.loads(before)["domain"] == "any"
