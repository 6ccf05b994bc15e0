"""`ddpm import` at the command line: names, questions, exit codes."""

import json

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from typer.testing import CliRunner

from ddpm_service.cli import app


def ddpm_import(*arguments):
    return CliRunner().invoke(app, ["import", *map(str, arguments)])


@pytest.fixture
def unet():
    settings = {"sample_size": 16, "block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    return UNet2DModel(**settings, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)


@pytest.fixture
def pipeline(unet, tmp_path):
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path / "pipeline")
    return tmp_path / "pipeline"


def test_name_and_version_come_from_the_folder(pipeline, tmp_path):
    out = tmp_path / "models" / "tiny" / "2.1"
    done = ddpm_import(pipeline, "--out", out, "--domain", "human_face")
    assert (done.exit_code, done.stdout) == (0, f"{out}\n")
    manifest = json.loads((out / "bundle.json").read_text())
    assert [manifest[key] for key in ("name", "version", "domain")] == ["tiny", "2.1", "human_face"]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny"]


def test_questions_are_answered_by_options_and_a_config(unet, tmp_path):
    torch.save({"model": unet.state_dict(), "ema": unet.state_dict()}, tmp_path / "last.ckpt")
    arguments = [tmp_path / "last.ckpt", "--out", tmp_path / "a" / "1.0"]

    asked = ddpm_import(*arguments)

    assert (asked.exit_code, asked.stdout) == (1, "")
    assert len(asked.stderr.splitlines()) == 1
    for option in ("--image-size", "--prediction-type", "--schedule", "--config"):
        assert option in asked.stderr
    assert not (tmp_path / "a").exists()

    (tmp_path / "said.json").write_text('{"network": {"norm_num_groups": 4, "attention_head_dim": 8}}')
    arguments += ["--config", tmp_path / "said.json", "--image-size", 16]
    done = ddpm_import(*arguments, "--prediction-type", "v_prediction", "--schedule", "cosine", "--terms", "Mine.")

    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'a' / '1.0'}\n")
    assert "averaged (EMA)" in done.stderr
    manifest = json.loads((tmp_path / "a" / "1.0" / "bundle.json").read_text())
    assert (manifest["prediction_type"], manifest["provenance"]["terms"]) == ("v_prediction", "Mine.")


@pytest.mark.parametrize(
    ("config", "message"),
    [("{", "is not JSON"), ('{"norm_num_groups": 4}', "must hold a JSON object"), ('{"network": 4}', "must hold")],
    ids=["no JSON", "a wrong key", "a number"],
)
def test_a_config_that_is_none_is_one_line(config, message, pipeline, tmp_path):
    (tmp_path / "said.json").write_text(config)
    done = ddpm_import(pipeline, "--out", tmp_path / "a" / "1.0", "--config", tmp_path / "said.json")
    assert done.exit_code == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_code_and_its_class_belong_together(pipeline, tmp_path):
    (tmp_path / "unet.py").write_text("")
    done = ddpm_import(pipeline, "--out", tmp_path / "a" / "1.0", "--model-file", tmp_path / "unet.py")
    assert done.exit_code == 2
    assert "belong together" in done.stderr
