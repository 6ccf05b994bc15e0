from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml

from ddpm_core.denoiser import Prediction
from ddpm_core.errors import InvalidInput
from ddpm_core.precision import Precision
from ddpm_core.training import recipe as recipes
from ddpm_core.training.machine import missing_to_compile, precision_for
from ddpm_core.training.networks import build
from ddpm_core.training.recipe import Decay, Loss, Recipe, Schedule

RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("*.yaml"))


def test_a_file_is_read_and_overrides_win(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("batch: 16\nlearning_rate: 1e-4\nnetwork: {class: AttentionUNet, heads: 2}\n", encoding="utf-8")
    recipe = recipes.read(file, ["batch=32", "loss=huber", "betas=[0.9, 0.95]", "network.middle=64"], steps=7)
    assert (recipe.batch, recipe.loss, recipe.betas, recipe.steps) == (32, Loss.HUBER, (0.9, 0.95), 7)
    assert recipe.learning_rate == 1e-4
    assert recipe.network == {"class": "AttentionUNet", "heads": 2, "middle": 64}


def test_nothing_behind_the_sign_is_the_empty_text():
    assert recipes.change(recipes.read(None, ["init=models/faces-64/2.1"]), {}, ["init="]).init == ""


def test_what_is_written_reads_back_as_the_same_recipe(tmp_path):
    recipe = recipes.read(None, ["schedule=linear", "classes=[cats]", "patch=2"])
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
    assert recipes.read(file) == recipe


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("learnin_rate=1", "no recipe setting learnin_rate. Did you mean learning_rate?"),
        ("schedule=cosin", "Did you mean cosine?"),
        ("batch=many", "batch must be a whole number, not 'many'"),
        ("batch=0", "batch must be at least 1"),
        ("batch=1.5", "batch must be a whole number"),
        ("flip=1", "flip must be true or false"),
        ("learning_rate=fast", "learning_rate must be a number"),
        ("validation=1", "validation must be 0 up to, not including, 1"),
        ("classes=cats", "classes must be a list"),
        ("network=3", "network must be a mapping"),
        ("accumulate=5", "batch must be a multiple of accumulate = 5"),
        ("samples=0", "samples must be at least 1"),
        ("seed=4294967296", "seed must be 0..4294967295"),
        ("seed=-1", "seed must be 0..4294967295"),
        ("patch=3", "image_size must be a multiple of patch = 3"),
        ("channels=2", "channels must be 1 or 3"),
        ("bands=2", "bands must be 0 or 1"),
        ("domain=dogs", "domain must be human_face, cat_face or any"),
        ("optimizer=adam", "Did you mean adamw?"),
        ("emphasis=0.5", "emphasis must be at least 1"),
        ("emphasis=2", "emphasis must be 1 but for domain = human_face"),
        ("batch", "--set wants key=value"),
        ("betas=[0.9", "--set 'betas=[0.9' is not YAML"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(setting, says):
    with pytest.raises(InvalidInput) as caught:
        recipes.read(None, [setting])
    assert says in caught.value.message


LAUGHS = ["a: &a [x, x, x]", *(f"{name}: &{name} [*{last}, *{last}]" for last, name in pairwise("abcdefghijklm"))]
BAD = {
    "a list": "[1, 2]",
    "cut": "a: [",
    "bytes": "\xff",
    "deep": "[" * 5000,
    "a bomb": f"network: {{{', '.join(LAUGHS)}}}",
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_a_file_that_is_no_recipe_is_refused_by_name(content, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(InvalidInput, match=r"bad\.yaml"):
        recipes.read(file)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ({"class": "UNet2D"}, "Did you mean UNet2DModel?"),
        ({"class": "UNet2DModel", "layer_per_block": 2}, "Did you mean layers_per_block?"),
        ({"class": "AttentionUNet", "width": [8]}, "Did you mean widths?"),
    ],
)
def test_a_wrong_setting_of_a_network_is_named_too(network, says):
    with pytest.raises(InvalidInput) as caught:
        build(recipes.change(Recipe(), {"network": network}))
    assert says in caught.value.message


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_every_recipe_of_the_repository_makes_its_network(file):
    recipe = recipes.read(file)
    with torch.device("meta"):
        network = build(recipe)
        smaller = recipe.patch * 2**recipe.bands
        side = recipe.image_size // smaller
        x = torch.zeros(1, recipe.channels * smaller**2, side, side)
        out = network(x, torch.zeros(1, dtype=torch.long))
    out = out if isinstance(out, torch.Tensor) else out.sample
    assert out.shape == x.shape
    assert recipe.name == file.stem


def test_the_recipes_of_the_origin_systems_have_their_settings():
    origin = {file.stem: recipes.read(file) for file in RECIPES}
    linear_epsilon = {"celeba-76", "cifar10-32", "fairface-128", "dogs-64"}
    assert {"afhq-cat", "faces-64", "faces-128", "cats-64"} | linear_epsilon == set(origin)
    assert {name for name, r in origin.items() if r.schedule is Schedule.LINEAR} == linear_epsilon
    assert all(origin[name].prediction is Prediction.EPSILON for name in linear_epsilon)
    assert (origin["celeba-76"].num_levels, origin["celeba-76"].image_size) == (500, 76)
    assert origin["fairface-128"].decay is Decay.COSINE
    assert origin["dogs-64"].network == {"class": "AttentionUNet"}


def test_the_embedded_model_fits_into_20_mib_of_16_bit_weights():
    with torch.device("meta"):
        network = build(recipes.read(next(file for file in RECIPES if file.stem == "faces-64")))
    assert sum(parameter.numel() for parameter in network.parameters()) * 2 <= 20 * 2**20


def test_float16_without_a_gpu_is_refused_with_what_is_possible():
    with pytest.raises(InvalidInput, match="float16 needs a GPU") as caught:
        precision_for(Precision.FLOAT16, torch.device("cpu"))
    assert caught.value.allowed == "auto, bfloat16, float32"


@pytest.mark.parametrize("word", ["float32", "fp32"])
def test_precision_has_the_names_of_torch_and_knows_those_of_accelerate(word):
    assert recipes.read(None, [f"precision={word}"]).precision is Precision.FLOAT32


def test_compiling_needs_a_compiler_and_the_headers_of_python(tmp_path, monkeypatch):
    cpu, gpu, compilers = torch.device("cpu"), torch.device("cuda"), {"gcc", "g++"}
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda name: name if name in compilers else None)
    assert missing_to_compile(cpu) == missing_to_compile(gpu) == "the headers of Python (python3-dev)"
    (tmp_path / "Python.h").touch()
    assert missing_to_compile(cpu) == missing_to_compile(gpu) == ""
    compilers.clear()
    assert missing_to_compile(cpu) == "a compiler (g++ or clang++)"
    assert missing_to_compile(gpu) == "a compiler (gcc or clang)"
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (6, 1))
    assert "compute capability" in missing_to_compile(gpu)


def test_auto_is_a_precision_that_the_machine_has():
    assert precision_for(Precision.AUTO, torch.device("cpu")) in (Precision.BFLOAT16, Precision.FLOAT32)
    assert precision_for(Precision.FLOAT32, torch.device("cpu")) is Precision.FLOAT32
