"""A picture on bands: an exact basis, a preconditioning for each band, and half the side's model as its coarse part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from pydantic import ValidationError
from torch import Tensor, nn

from ddpm_core import load, schedule
from ddpm_core.bands import Bands, haar, spread_of, unhaar
from ddpm_core.bundle import Bundle, Guide, Manifest, add_guide, write_bundle
from ddpm_core.denoiser import Denoiser, Prediction
from ddpm_core.errors import InvalidInput
from ddpm_core.plan import make_plan
from ddpm_core.sampling import sample
from ddpm_core.schedule import NoiseSchedule

from .conftest import TinyNetwork

BANDS = Bands(spread=(0.1, 0.09, 0.04))


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def large(cosine: NoiseSchedule) -> NoiseSchedule:
    return schedule.doubled(cosine)


class Enlarged(nn.Module):
    """A network of half the side on bands, before it has learnt any detail."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        coarse = x[:, : x.shape[1] // 4]
        out: Tensor = self.network(coarse, timestep)
        return torch.cat([out, torch.zeros_like(x[:, coarse.shape[1] :])], 1)


def test_the_basis_is_orthonormal_and_its_inverse_exact(pictures: Tensor) -> None:
    bands = haar(pictures)
    assert bands.shape == (3, 12, 8, 12)
    assert torch.allclose(unhaar(bands), pictures, atol=1e-6)
    assert torch.allclose(bands.square().sum((1, 2, 3)), pictures.square().sum((1, 2, 3)), rtol=1e-5)
    assert torch.allclose(BANDS.join(BANDS.split(pictures)), pictures, atol=1e-6)


def test_the_coarse_band_is_the_picture_at_half_the_side(pictures: Tensor) -> None:
    halved = torch.nn.functional.interpolate(pictures, scale_factor=0.5, mode="area")
    assert torch.allclose(BANDS.split(pictures)[:, :3], halved, atol=1e-6)


def test_detail_is_told_apart_by_its_direction() -> None:
    columns = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 1, 16, 16)
    horizontal, vertical, diagonal = spread_of([columns, columns])
    assert (horizontal, vertical, diagonal) == (pytest.approx(2), 0, 0)


@pytest.mark.parametrize("level", [1, 20, 300, 700, 1000])
def test_the_right_answer_gives_the_clean_picture_back(pictures: Tensor, large: NoiseSchedule, level: int) -> None:
    a = torch.tensor(large.alpha_bar[[level] * 3]).view(-1, 1, 1, 1)
    x = a.sqrt().float() * pictures + (1 - a).sqrt().float() * torch.randn_like(pictures)
    asked = BANDS.ask(x, a)
    assert torch.allclose(BANDS.join(asked.clean(asked.target(BANDS.split(pictures)))), pictures, atol=2e-3)


def test_what_the_network_sees_and_what_it_is_asked_have_unit_variance_at_every_level(large: NoiseSchedule) -> None:
    """Of pictures whose bands have the spreads that are told."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(4, 4, 64, 64, generator=generator) * torch.tensor([1.0, *BANDS.spread]).view(1, 4, 1, 1)
    pictures = BANDS.join(clean)
    for level in (1, 200, 500, 800, 1000):
        a = torch.tensor(large.alpha_bar[[level] * 4]).view(-1, 1, 1, 1)
        noise = torch.randn(4, 1, 128, 128, generator=generator)
        asked = BANDS.ask(a.sqrt().float() * pictures + (1 - a).sqrt().float() * noise, a)
        for told in (asked.input, asked.target(clean)):
            assert torch.allclose(told.std(dim=(0, 2, 3)), torch.ones(4), atol=0.05)


def test_the_doubled_schedule_hides_the_same_structure_at_every_level(
    cosine: NoiseSchedule, large: NoiseSchedule
) -> None:
    assert large.sigma_256(128)[1:] == pytest.approx(cosine.sigma_256(64)[1:], rel=1e-6)
    again = schedule.from_diffusers(large.config)
    assert again.alpha_bar == pytest.approx(large.alpha_bar, rel=1e-9)


@pytest.mark.parametrize("patch", [1, 2])
def test_a_model_begins_as_that_of_half_the_side_enlarged(
    cosine: NoiseSchedule, large: NoiseSchedule, patch: int
) -> None:
    network = TinyNetwork(3 * patch**2)
    small = Denoiser(network, cosine, Prediction.V, patch=patch)
    doubled = Denoiser(Enlarged(network), large, Prediction.V, patch=patch, bands=BANDS)
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    level = torch.tensor([1, 100, 600, 1000])
    a, a_small = (torch.tensor(each.alpha_bar[level]).view(-1, 1, 1, 1) for each in (large, cosine))
    seen = haar(x)[:, :3] / 2 * (a_small / a).sqrt().float()
    with torch.inference_mode():
        coarse, expected = haar(doubled(x, level))[:, :3], 2 * small(seen, level)
    if patch == 2:  # what differs within a block is weave
        coarse, expected = haar(coarse)[:, :3], haar(expected)[:, :3]
    assert torch.allclose(coarse, expected, atol=2e-3)


def test_a_guide_of_half_the_side_pushes_the_coarse_band_alone(cosine: NoiseSchedule, large: NoiseSchedule) -> None:
    worse = TinyNetwork()
    with torch.no_grad():
        worse.conv.weight *= 0.5
    guide = Denoiser(worse, schedule.halved(large), Prediction.V)
    main = Denoiser(TinyNetwork(12), large, Prediction.V, bands=BANDS, guide=guide)
    x, level = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([300, 800])
    a, a_small = (torch.tensor(each.alpha_bar[level]).view(-1, 1, 1, 1) for each in (large, cosine))
    seen = haar(x)[:, :3] / 2 * (a_small / a).sqrt().float()
    with torch.inference_mode():
        r = main(x, level)
        guided = haar(main.guided_by(x, level, r))
        assert torch.allclose(guided[:, :3], 2 * guide(seen, level), atol=1e-4)
    assert torch.allclose(guided[:, 3:], haar(r)[:, 3:], atol=1e-6)


def test_the_halved_schedule_undoes_the_doubled_one(cosine: NoiseSchedule) -> None:
    assert schedule.halved(schedule.doubled(cosine)).alpha_bar == pytest.approx(cosine.alpha_bar, rel=1e-9)


def test_a_bundle_with_bands_takes_a_guide_of_its_own_kind_or_of_the_coarse_band(
    cosine: NoiseSchedule, large: NoiseSchedule, tmp_path: Path
) -> None:
    def written(name: str, channels: int, noise: NoiseSchedule, **about: object) -> Path:
        network = UNet2DModel(
            sample_size=8,
            in_channels=channels,
            out_channels=channels,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
            layers_per_block=1,
        )
        kind = {"name": name, "version": "1", "domain": "any", "prediction_type": "v_prediction", **about}
        write_bundle(tmp_path / name, network, noise.config, Manifest.model_validate(kind), "# x\n")
        return tmp_path / name

    push = Guide(weight=2, interval=(0.5, 60))
    own = written("own", 12, large, image_size=32, bands=BANDS)
    coarse = written("coarse", 3, cosine, image_size=16)
    for guide in (own, coarse):
        bundle = add_guide(written("main", 12, large, image_size=32, bands=BANDS), guide, push)
        pipeline = load(bundle.path, device="cpu", dtype="float32")
        pushed, plain = (np.asarray(pipeline(seed=0, num_inference_steps=4, guide=weight)[0]) for weight in (None, 1))
        assert (pushed != plain).any()
    for other, size in (("coarse", 32), ("plain", 16)):
        wrong = written(f"wrong-{other}", 3, cosine if other == "coarse" else schedule.linear(), image_size=size)
        with pytest.raises(InvalidInput, match="cannot guide"):
            add_guide(bundle.path, wrong, push)


def test_rows_of_a_banded_model_do_not_notice_their_batch_and_are_planned_like_any(large: NoiseSchedule) -> None:
    manifest = Manifest(
        name="tiny", version="1", domain="any", image_size=32, prediction_type=Prediction.V, bands=BANDS
    )
    bundle = Bundle(Path("tiny"), manifest, large)
    assert (bundle.shape, bundle.network_shape) == ((3, 32, 32), (12, 16, 16))
    denoiser = bundle.denoiser(TinyNetwork(12), torch.device("cpu"), torch.float32)
    states = make_plan(bundle, num_images=3, num_inference_steps=3, seed=1).start()
    with torch.inference_mode():
        together = sample(denoiser, states)
        assert together.shape == (3, 3, 32, 32)
        assert torch.allclose(sample(denoiser, states[1:2])[0], together[1], atol=1e-5)


@pytest.mark.parametrize("spread", [(0.0, 0.1, 0.1), (0.1, -1.0, 0.1), (0.1, 0.1, float("nan")), (0.1, 0.1)])
def test_a_spread_that_is_none_is_refused(spread: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        Bands(spread=spread)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image_size": 30, "patch": 2}, "image_size that is a multiple of 4, not 30"),
        ({"image_size": 33}, "multiple of 2, not 33"),
        ({"prediction_type": "epsilon"}, "prediction_type v_prediction, not epsilon"),
    ],
)
def test_bands_that_do_not_fit_the_model_are_refused_by_name(change: dict[str, object], says: str) -> None:
    about = {"name": "tiny", "version": "1", "domain": "any", "image_size": 32, "prediction_type": "v_prediction"}
    with pytest.raises(ValidationError) as caught:
        Manifest.model_validate({**about, "bands": {"spread": [0.1, 0.1, 0.1]}, **change})
    (problem,) = caught.value.errors()
    assert problem["loc"] == ("bands",)
    assert says in problem["msg"]
