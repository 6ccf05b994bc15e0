"""What a network on blocks of pixels draws all over a picture is taken out, and what is the picture's stays."""

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch.nn import functional as F

from ddpm_core.bands import Bands, haar
from ddpm_core.grids import detail_of_smooth, without_grid, without_weave

BANDS = Bands(spread=(0.1, 0.1, 0.1))
RAMP = torch.linspace(-0.8, 0.7, 64).expand(1, 3, 64, 64)


def photograph(side: int = 128) -> torch.Tensor:
    face = Image.fromarray(skimage.data.astronaut()[20:220, 120:320]).resize((side, side), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(face)).permute(2, 0, 1)[None].float() / 127.5 - 1


def detail(images: torch.Tensor) -> torch.Tensor:
    return haar(images)[:, images.shape[1] :]


def test_the_detail_of_a_smooth_picture_is_that_of_cubic_interpolation() -> None:
    coarse = F.avg_pool2d(photograph(), 2)
    expected = detail(F.interpolate(coarse, scale_factor=2, mode="bicubic", antialias=True))
    inner = (..., slice(2, -2), slice(2, -2))
    assert torch.allclose(detail_of_smooth(coarse)[inner], expected[inner], atol=1e-5)


@pytest.mark.parametrize("picture", [RAMP, RAMP.mT], ids=["across", "down"])
def test_without_detail_a_smooth_picture_is_no_squares(picture: torch.Tensor) -> None:
    bands = BANDS.split(picture)
    squares = torch.cat([bands[:, :3], torch.zeros_like(bands[:, 3:])], 1)
    smooth = BANDS.join(without_weave(squares, 1))
    inner = (..., slice(8, -8), slice(8, -8))
    assert (BANDS.join(squares) - picture)[inner].abs().max() > 0.01
    assert (smooth - picture)[inner].abs().max() < 0.001


@pytest.mark.parametrize("patch", [1, 2])
def test_a_weave_on_a_photograph_goes_and_its_own_detail_stays(patch: int) -> None:
    picture = photograph()
    weave = torch.tensor([[0.05, -0.05], [-0.02, 0.02]]).repeat(64, 64)
    slowly = torch.linspace(0, 1, 128)[:, None]  # stronger below than above
    clean, woven = (BANDS.join(without_weave(BANDS.split(each), patch)) for each in (picture, picture + weave * slowly))
    assert (woven - clean).std() < 0.1 * (weave * slowly).std()
    assert (clean - picture).std() < 0.3 * detail(picture).std()


def test_the_places_of_a_block_get_one_mean_in_each_picture() -> None:
    pictures = torch.cat([photograph(64), photograph(64).flip(-1)])
    grid = torch.tensor([[0.1, -0.1], [-0.2, 0.2]]).repeat(32, 32)
    assert torch.allclose(without_grid(pictures + grid, 2), without_grid(pictures, 2), atol=1e-6)


def test_a_faint_texture_on_an_even_place_goes_and_an_edge_stays() -> None:
    edge = torch.where(torch.arange(64) < 33, -0.6, 0.4).expand(1, 3, 64, 64)
    texture = 0.015 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    smooth = BANDS.join(without_weave(BANDS.split(edge + texture), 1))
    even = (..., slice(4, 28), slice(4, 12))
    assert detail(smooth - edge)[even].std() < 0.5 * detail(texture)[even].std()
    assert (smooth - edge).abs().max() < 0.1
