"""Layers exchanged on a CPU compute what the network's own did."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models.upsampling import Upsample2D
from torch import nn

from ddpm_core import schedule
from ddpm_core.denoiser import Denoiser, Prediction, make_ready
from ddpm_core.layers import NormEachImageAlone, UpsampleInOneStep, exchange


def unet() -> UNet2DModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DModel(
            sample_size=16,
            block_out_channels=(16, 32, 32),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=8,
        ).eval()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (7, 5), (16, 16)])
def test_doubling_and_convolving_is_one_transposed_convolution(size: tuple[int, int], bias: bool) -> None:
    layer = Upsample2D(6, use_conv=True, out_channels=10, bias=bias)
    x = torch.randn(2, 6, *size)
    with torch.inference_mode():
        assert torch.allclose(UpsampleInOneStep(layer.conv)(x), layer(x), atol=1e-5)


def test_a_whole_network_computes_the_same_with_exchanged_layers() -> None:
    plain, x, timestep = unet(), torch.randn(3, 3, 16, 16), torch.tensor([3, 500, 999])
    exchanged = copy.deepcopy(plain)
    exchange(exchanged, torch.bfloat16)
    assert any(isinstance(module, NormEachImageAlone) for module in exchanged.modules())
    assert sum(isinstance(module, UpsampleInOneStep) for module in exchanged.modules()) == 2
    assert not any(isinstance(module, Upsample2D) for module in exchanged.modules())
    with torch.inference_mode():
        assert torch.allclose(exchanged(x, timestep).sample, plain(x, timestep).sample, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_does_not_notice_its_batch(dtype: torch.dtype) -> None:
    network = make_ready(unet(), torch.device("cpu"), dtype)
    denoiser = Denoiser(network, schedule.cosine(), Prediction.V, dtype=dtype)
    assert not any(parameter.requires_grad for parameter in denoiser.network.parameters())
    x, level = torch.randn(5, 3, 16, 16), torch.tensor([1, 20, 300, 700, 1000])
    with torch.inference_mode():
        together = denoiser(x, level)
        for i in range(5):
            alone = denoiser(x[i : i + 1], level[i : i + 1])[0]
            assert torch.allclose(alone, together[i], atol=1e-5 if dtype == torch.float32 else 0)


@pytest.mark.parametrize(
    "layer",
    [
        Upsample2D(4),
        Upsample2D(4, use_conv_transpose=True),
        Upsample2D(4, use_conv=True, interpolate=False),
        Upsample2D(4, use_conv=True, kernel_size=5, padding=2),
    ],
)
def test_another_kind_of_layer_is_kept(layer: nn.Module) -> None:
    network = nn.Sequential(layer)
    exchange(network, torch.float32)
    assert network[0] is layer


def test_nothing_random_is_drawn_by_the_exchange() -> None:
    network, before = unet(), torch.random.get_rng_state()
    exchange(network, torch.float32)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_worker_imports_diffusers_only_for_a_network_of_it() -> None:
    program = "import sys, handlers.ddpm_handler; sys.exit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=240, check=False).returncode == 0
