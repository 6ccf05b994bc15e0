"""A network that comes with its own code: run because it was named, carried in the bundle, and guarded there."""

from __future__ import annotations

import importlib.util
import json
import os
import py_compile

import pytest
import torch
from typer.testing import CliRunner

from ddpm_core import load
from ddpm_core.bundle import read_bundle, sha256
from ddpm_core.errors import InvalidInput
from ddpm_service.cli import app

UNET = """
import math
import torch
from torch import nn

class Unet(nn.Module):
    def __init__(self, dim, channels=3):
        super().__init__()
        self.time = nn.Linear(1, dim)
        self.inside = nn.Conv2d(channels, dim, 3, padding=1)
        self.outside = nn.Conv2d(dim, channels, 3, padding=1)

    def forward(self, x, time):
        # As many do: the code of the time is float32, whatever the network is.
        return self.outside(torch.relu(self.inside(x) + self.time(time[:, None] / 1000)[:, :, None, None]))
"""


@pytest.fixture
def code(tmp_path):
    file = tmp_path / "unet.py"
    file.write_text(UNET)
    return file


@pytest.fixture
def weights(code):
    names = {}
    exec(UNET, names)  # the same source as the file's
    torch.manual_seed(0)
    return names["Unet"](8).state_dict()


def test_it_is_built_filled_and_carried(code, weights, bring):
    bundle = bring({"ema": {f"ema_model.model.{key}": value for key, value in weights.items()}},
                   code=(code, "Unet"), network={"dim": 8})  # fmt: skip

    held = bundle.load_network(run_code=True).state_dict()
    assert all(torch.equal(held[key], value) for key, value in weights.items())
    assert bundle.manifest.weights == "ema"
    assert (bundle.path / "unet.py").read_text() == UNET
    assert load(bundle.path, device="cpu", run_code=True)(num_inference_steps=2)[0].size == (16, 16)


@pytest.mark.parametrize(
    ("source", "settings"),
    [
        (
            "from diffusers import UNet2DModel\n\nclass Unet(UNet2DModel):\n    pass\n",
            {
                "sample_size": 16,
                "block_out_channels": [8, 8],
                "norm_num_groups": 4,
                "down_block_types": ["DownBlock2D", "DownBlock2D"],
                "up_block_types": ["UpBlock2D", "UpBlock2D"],
            },
        ),
        (
            UNET.replace("    def forward", "        self.again = self.inside\n\n    def forward"),
            {"dim": 8},
        ),
    ],
    ids=["a class of diffusers inherited", "weights used twice"],
)
def test_it_may_inherit_from_diffusers_and_use_weights_twice(tmp_path, bring, source, settings):
    names = {}
    exec(source, names)
    file = tmp_path / "own.py"
    file.write_text(source)
    bundle = bring(names["Unet"](**settings).state_dict(), code=(file, "Unet"), network=settings)
    assert load(bundle.path, device="cpu", run_code=True)(num_inference_steps=2)[0].size == (16, 16)


def test_the_bundle_runs_no_other_code(code, weights, bring):
    bundle = bring(weights, code=(code, "Unet"), network={"dim": 8})
    (bundle.path / "unet.py").write_text("raise SystemExit('changed')")
    with pytest.raises(InvalidInput, match=r"unet\.py has changed"):
        bundle.load_network(run_code=True)


def test_the_bundle_runs_no_bytecode_that_lies_beside_its_code(code, weights, bring, tmp_path):
    bundle = bring(weights, code=(code, "Unet"), network={"dim": 8})
    own = bundle.path / "unet.py"
    evil = tmp_path / "evil.py"
    evil.write_text("raise SystemExit('bytecode')".ljust(own.stat().st_size))
    os.utime(evil, ns=(own.stat().st_atime_ns, own.stat().st_mtime_ns))
    py_compile.compile(str(evil), importlib.util.cache_from_source(str(own)))

    assert bundle.load_network(run_code=True)


@pytest.fixture
def boobytrapped(code, weights, bring):
    """A bundle whose code ends the process that runs it, with a right checksum."""
    bundle = bring(weights, code=(code, "Unet"), network={"dim": 8})
    (bundle.path / "unet.py").write_text("raise SystemExit('it ran')")
    manifest = json.loads((bundle.path / "bundle.json").read_text())
    manifest["checksums"]["unet.py"] = sha256(bundle.path / "unet.py")
    (bundle.path / "bundle.json").write_text(json.dumps(manifest))
    return bundle.path


def test_code_of_a_bundle_is_run_only_where_that_is_asked(boobytrapped):
    for use in (read_bundle(boobytrapped).load_network, lambda: load(boobytrapped)):
        with pytest.raises(InvalidInput, match=r"own code, unet\.py.*--run-code"):
            use()
    with pytest.raises(SystemExit, match="it ran"):
        load(boobytrapped, run_code=True)


def test_code_without_a_checksum_is_not_run(boobytrapped):
    manifest = json.loads((boobytrapped / "bundle.json").read_text())
    del manifest["checksums"]["unet.py"]
    (boobytrapped / "bundle.json").write_text(json.dumps(manifest))

    with pytest.raises(InvalidInput, match=r"no checksum of unet\.py"):
        load(boobytrapped, run_code=True)


@pytest.mark.parametrize("command", ["inspect", "pack", "sample", "plot backward", "evaluate samples"])
def test_looking_at_a_bundle_runs_nothing_of_it(boobytrapped, command, tmp_path):
    more = {
        "inspect": [],
        "pack": ["--model-store", str(tmp_path / "store")],
        "evaluate samples": ["--reference", str(tmp_path), "--out", str(tmp_path / "table.json")],
    }.get(command, ["--out", str(tmp_path / "out.png")])
    told = CliRunner().invoke(app, [*command.split(), str(boobytrapped), *more])

    assert "it ran" not in str(told.exception) + told.output
    assert (told.exit_code == 0) == (command in ("inspect", "pack")), told.output
    if command == "inspect":
        assert "unet.py, not run" in told.output


@pytest.mark.parametrize(
    ("source", "name", "settings", "message"),
    [
        (UNET, "Unet", {}, r"missing 1 required positional argument: 'dim'.* Settings come with --config FILE"),
        (UNET, "Unet", {"dim": 8, "depth": 2}, "unexpected keyword argument 'depth'"),
        (UNET, "Net", {"dim": 8}, "has no attribute 'Net'"),
        (UNET, "Unet", {"dim": 4}, r"inside\.weight \(8, 3, 3, 3\) instead of \(4, 3, 3, 3\)"),
        ("import no_such_package", "Unet", {}, "No module named 'no_such_package'"),
        (UNET.replace("return self", "return 'x' or self"), "Unet", {"dim": 8}, "no image could be made"),
        (UNET.replace("return self.outside(", "return (0/0 if 0 else float('nan')) * self.outside("), "Unet",
         {"dim": 8}, "not finite"),
    ],
    ids=["settings", "too many", "class", "another", "import", "fails", "not finite"],
)  # fmt: skip
def test_code_that_does_not_fit_is_told_and_nothing_is_left(
    source, name, settings, message, code, weights, bring, nothing_is_left
):
    code.write_text(source)
    with pytest.raises(InvalidInput, match=message):
        bring(weights, code=(code, name), network=settings)
    assert nothing_is_left()


def test_code_is_never_run_unless_it_was_named(code, weights, bring):
    code.write_text("raise SystemExit('it ran')")
    with pytest.raises(InvalidInput, match="--model-file"):
        bring(weights)


OTHER_TASKS = {
    "learned variance": (UNET.replace("nn.Conv2d(dim, channels,", "nn.Conv2d(dim, 2 * channels,"), "learned_variance"),
    "more channels": (UNET.replace("nn.Conv2d(channels, dim,", "nn.Conv2d(2 * channels, dim,"), "concatenated_input"),
    "a class as well": (UNET.replace("def forward(self, x, time)", "def forward(self, x, time, y)"), "conditioned"),
    "class embeddings": (
        UNET.replace("self.time = ", "self.label_emb = nn.Embedding(2, dim); self.time = ")
        .replace("        # As many do", "        assert y is not None\n        # As many do")
        .replace("def forward(self, x, time)", "def forward(self, x, time, y=None)"),
        "class_embeddings",
    ),
}


@pytest.mark.parametrize(("source", "why"), OTHER_TASKS.values(), ids=OTHER_TASKS)
def test_code_for_another_task_is_refused_by_its_name(source, why, tmp_path, bring, nothing_is_left):
    file = tmp_path / "unet.py"
    file.write_text(source)
    names = {}
    exec(source, names)
    torch.save(names["Unet"](8).state_dict(), tmp_path / "source.pt")
    with pytest.raises(InvalidInput) as refusal:
        bring(tmp_path / "source.pt", code=(file, "Unet"), network={"dim": 8})
    assert refusal.value.code == why
    assert "image-size" not in refusal.value.message
    assert not (tmp_path / "out").exists()
