"""Bundles on disk: what is written comes back, what is broken is named, nothing is half loaded."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, UNet2DModel

from ddpm_core import load, schedule
from ddpm_core.bundle import (
    GUIDE_WEIGHTS,
    MANIFEST,
    WEIGHTS,
    Bundle,
    Guide,
    Manifest,
    NetworkCode,
    add_guide,
    read_bundle,
    write_bundle,
)
from ddpm_core.errors import InvalidInput
from ddpm_core.pixels import to_pixels
from ddpm_core.plan import make_plan
from ddpm_core.sampling import sample

EMBEDDED = sorted((Path(__file__).parents[2] / "models").glob("*/*/bundle.json"))


def small_unet(widths: tuple[int, int] = (8, 16), **settings: object) -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        **{"sample_size": 16, **settings},
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        layers_per_block=1,
    )


def manifest(**more: object) -> Manifest:
    return Manifest.model_validate(
        {
            "name": "small",
            "version": "1.0",
            "domain": "any",
            "image_size": 16,
            "prediction_type": "epsilon",
            **more,
        }
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "small", small_unet(), schedule.linear().config, manifest(), "# small\n")


def test_what_is_written_comes_back(bundle: Bundle) -> None:
    weights, original = bundle.load_network().state_dict(), small_unet().state_dict()
    assert weights.keys() == original.keys()
    assert all(torch.equal(weights[key], original[key]) for key in weights)
    assert np.allclose(bundle.schedule.alpha_bar, schedule.linear().alpha_bar)
    assert bundle.shape == (3, 16, 16)


PUSH = Guide(weight=1.5, interval=(1, 60))


@pytest.fixture
def worse(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "worse", small_unet((4, 8)), schedule.linear().config, manifest(), "# worse\n")


def test_a_bundle_is_given_a_smaller_network_as_its_guide_and_keeps_all_else(bundle: Bundle, worse: Bundle) -> None:
    guided = add_guide(bundle.path, worse.path, PUSH)
    assert guided.manifest.guide == PUSH
    kept, given = guided.load_guide(), worse.load_network().half().float().state_dict()
    assert kept is not None
    assert all(torch.equal(value, given[key]) for key, value in kept.state_dict().items())
    own = guided.load_network().state_dict()
    assert all(torch.equal(own[key], value) for key, value in bundle.load_network().state_dict().items())
    pipeline = load(bundle.path, device="cpu", dtype="float32")
    pushed, plain = (np.asarray(pipeline(seed=0, num_inference_steps=6, guide=weight)[0]) for weight in (None, 1))
    assert (pushed != plain).any()


def test_a_changed_guide_is_named(bundle: Bundle, worse: Bundle) -> None:
    bundle = add_guide(bundle.path, worse.path, PUSH)
    with (bundle.path / GUIDE_WEIGHTS).open("ab") as file:
        file.write(b"x")
    with pytest.raises(InvalidInput, match=re.escape(GUIDE_WEIGHTS)):
        bundle.load_network()


@pytest.mark.parametrize(
    "header",
    [struct.pack("<Q", 2**60), struct.pack("<Q", 50_000) + b"[" * 50_000, b"{}"],
    ids=["huge", "deep", "short"],
)
def test_weights_with_an_absurd_head_are_refused_in_words(bundle: Bundle, header: bytes) -> None:
    (bundle.path / WEIGHTS).write_bytes(header)
    told = json.loads((bundle.path / MANIFEST).read_text())
    (bundle.path / MANIFEST).write_text(json.dumps(told | {"checksums": {}}))
    with pytest.raises(InvalidInput, match="is damaged"):
        read_bundle(bundle.path).load_network()


@pytest.mark.parametrize(
    ("other", "linear", "word"),
    [
        ({"prediction_type": "v_prediction"}, True, "prediction_type"),
        ({"image_size": 32}, True, "image_size"),
        ({"channels": 1}, True, "channels"),
        ({}, False, "schedule"),
    ],
)
def test_a_guide_of_another_kind_is_refused_by_what_sets_it_apart(
    bundle: Bundle, tmp_path: Path, other: dict[str, object], linear: bool, word: str
) -> None:
    channels = other.get("channels", 3)
    network = small_unet((4, 8), in_channels=channels, out_channels=channels)
    config = (schedule.linear() if linear else schedule.cosine()).config
    write_bundle(tmp_path / "other", network, config, manifest(**other), "# other\n")
    before = (bundle.path / MANIFEST).read_text()
    with pytest.raises(InvalidInput) as refused:
        add_guide(bundle.path, tmp_path / "other", PUSH)
    assert refused.value.field == "guide"
    assert word in refused.value.message
    assert (bundle.path / MANIFEST).read_text() == before


def test_a_guide_whose_channels_do_not_fit_is_refused_when_it_is_loaded(bundle: Bundle, worse: Bundle) -> None:
    add_guide(bundle.path, worse.path, PUSH)
    config = bundle.path / "guide" / "config.json"
    config.write_text(config.read_text().replace('"in_channels": 3', '"in_channels": 12'))
    with pytest.raises(InvalidInput, match="12 channels"):
        read_bundle(bundle.path).load_guide()


@pytest.mark.parametrize("guide", [{"weight": 0.5, "interval": [1, 60]}, {"weight": 1.5, "interval": [60, 1]}])
def test_a_manifest_whose_guide_makes_no_sense_is_refused(bundle: Bundle, guide: dict[str, object]) -> None:
    path = bundle.path / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "guide": guide}))
    with pytest.raises(InvalidInput, match="guide"):
        read_bundle(bundle.path)


def test_diffusers_itself_can_sample_a_bundle(bundle: Bundle) -> None:
    pipeline = DDPMPipeline.from_pretrained(bundle.path)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline(num_inference_steps=2).images[0].size == (16, 16)


def test_a_loaded_bundle_samples_and_a_seed_repeats(bundle: Bundle) -> None:
    pipeline = load(bundle.path, device="cpu")
    first = pipeline(num_images=2, sampler="ddim", num_inference_steps=3, seed=0)
    again = pipeline(num_images=1, sampler="ddim", num_inference_steps=3, seed=1)
    assert [image.size for image in first] == [(16, 16)] * 2
    assert np.abs(np.asarray(first[1]).astype(int) - np.asarray(again[0])).max() <= 1


def test_a_network_may_bring_its_own_code(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "own.py").write_text(
        "import torch\n"
        "class Own(torch.nn.Module):\n"
        "    def __init__(self, width):\n"
        "        super().__init__()\n"
        "        self.config = {'width': width}\n"
        "        self.conv = torch.nn.Conv2d(3, 3, width, padding=width // 2)\n"
        "    def forward(self, x, timestep):\n"
        "        return self.conv(x)\n"
    )
    code = NetworkCode(file="own.py", network="Own")
    from ddpm_core.bundle import build_network

    network = build_network({"width": 3}, (folder / "own.py", "Own"))
    written = write_bundle(folder, network, schedule.cosine().config, manifest(network=code.model_dump()), "own")
    assert load(written.path, device="cpu", run_code=True)(num_inference_steps=2)[0].size == (16, 16)
    (folder / "own.py").write_text("raise SystemExit('changed')")
    with pytest.raises(InvalidInput, match=r"own\.py has changed"):
        read_bundle(folder).load_network(run_code=True)


@pytest.mark.parametrize("name", ["bundle.json", "unet/config.json", "scheduler/scheduler_config.json", WEIGHTS])
def test_a_missing_file_is_named(bundle: Bundle, name: str) -> None:
    (bundle.path / name).unlink()
    with pytest.raises(InvalidInput, match=rf"not a usable bundle: {re.escape(Path(name).name)} is missing\.$"):
        read_bundle(bundle.path).load_network()


def test_a_changed_file_is_named(bundle: Bundle) -> None:
    with (bundle.path / WEIGHTS).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(InvalidInput, match="has changed"):
        read_bundle(bundle.path).load_network()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_size", "large"),
        ("version", "latest"),
        ("domain", "dogs"),
        ("prediction_type", "score"),
        ("surprise", 1),
        ("name", "../up"),
    ],
)
def test_a_manifest_that_says_something_unknown_is_refused_by_field(bundle: Bundle, key: str, value: object) -> None:
    path = bundle.path / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(InvalidInput, match=key):
        read_bundle(bundle.path)


def test_two_files_that_contradict_each_other_are_refused(bundle: Bundle) -> None:
    path = bundle.path / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "v_prediction"}))
    with pytest.raises(InvalidInput, match="prediction_type"):
        read_bundle(bundle.path)


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape", "nan"])
def test_weights_that_do_not_fit_are_listed_and_nothing_is_loaded(tmp_path: Path, change: str) -> None:
    from ddpm_core.bundle import fit_weights

    network = small_unet()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    weights = {key: value.clone() + 1 for key, value in before.items()}
    if change == "missing":
        del weights["conv_in.bias"]
    elif change == "unexpected":
        weights["conv_in.extra"] = torch.zeros(1)
    elif change == "shape":
        weights["conv_in.bias"] = torch.zeros(3)
    else:
        weights["conv_in.bias"][0] = float("nan")
    with pytest.raises(InvalidInput, match=r"conv_in\.(bias|extra)"):
        fit_weights(network, weights, tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("path", EMBEDDED, ids=lambda path: "-".join(path.parts[-3:-1]))
def test_the_embedded_models_load_whole_and_lie_where_they_say(path: Path) -> None:
    embedded = read_bundle(path.parent)
    assert path.parts[-3:-1] == (embedded.manifest.name, embedded.manifest.version)
    embedded.load_network()
    assert "research use" in (path.parent / "README.md").read_text().lower()


def test_in_16_bit_an_image_does_not_notice_its_batch_either(target: np.ndarray) -> None:
    """The embedded model in bfloat16 on a CPU: alone and in a mixed batch the pictures are the same."""
    embedded = read_bundle(EMBEDDED[-1].parent)
    denoiser = load(embedded.path, device="cpu", dtype="bfloat16").denoiser
    times = embedded.manifest.image_size // 16
    selfie = np.kron(target, np.ones((times, times, 1), np.uint8))
    plans = [
        make_plan(embedded, selfie, seed=1, num_inference_steps=3),
        make_plan(embedded, selfie, seed=2, mode="celebrity", sampler="ddpm", num_inference_steps=4),
        make_plan(embedded, seed=3, sampler="ddim", num_inference_steps=3),
    ]
    states = [state for plan in plans for state in plan.start()]
    together = sample(denoiser, states)
    for state, mixed in zip(states, together, strict=True):
        (alone,) = sample(denoiser, [state])
        # With two threads the guide's kernels may add in another order: 2 of 255 were seen, 0 with one thread.
        assert np.abs(to_pixels(alone).astype(int) - to_pixels(mixed)).max() <= 2


def test_a_face_detector_beside_the_models_is_found_by_itself(tmp_path: Path, write_toy_bundle) -> None:
    bundle = write_toy_bundle(tmp_path / "toy" / "1.0")
    (tmp_path / "face_detection_yunet_2023mar_int8.onnx").write_bytes(b"of less precision, so left alone")
    load(bundle, device="cpu", dtype="float32", run_code=True)
    (tmp_path / "face_detection_yunet_2023mar.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(InvalidInput) as caught:
        load(bundle, device="cpu", dtype="float32", run_code=True)
    assert (caught.value.field, caught.value.given) == ("face_detector", "face_detection_yunet_2023mar.onnx")
