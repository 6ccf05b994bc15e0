"""A larger network begins as the smaller one that it grows out of."""

import pytest
import torch
from diffusers import UNet2DModel

from ddpm_core.bundle import read_bundle
from ddpm_core.errors import InvalidInput
from ddpm_core.training import run
from ddpm_core.training.growth import deepened
from ddpm_core.training.loop import Limits

SHAPE = {"sample_size": 16, "in_channels": 3, "out_channels": 3, "block_out_channels": [8, 16], "norm_num_groups": 4}
BLOCKS = {"down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]}
BY_TWOS = {"attention_head_dim": 8, **BLOCKS}


def unet(layers, seed):
    torch.manual_seed(seed)
    return UNet2DModel(layers_per_block=layers, **SHAPE, **BY_TWOS).eval()


@pytest.mark.parametrize(("few", "many"), [(1, 2), (1, 3), (2, 3)])
def test_a_deeper_network_computes_what_the_finished_one_does_and_every_layer_of_it_can_learn(few, many):
    finished, network = unet(few, 0), unet(many, 1)
    network.load_state_dict(deepened(finished.state_dict(), finished, network))
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([10, 700])
    with torch.no_grad():
        assert torch.allclose(network(x, t).sample, finished(x, t).sample, atol=1e-5)
    network(x, t).sample.square().mean().backward()
    added = network.down_blocks[0].resnets[few], network.up_blocks[1].resnets[many - few]
    assert all(layer.conv2.weight.grad.abs().sum() > 0 for layer in added)


def test_a_network_as_deep_begins_as_it_is():
    finished = unet(2, 0)
    assert deepened(finished.state_dict(), finished, unet(2, 1)).keys() == finished.state_dict().keys()


def test_a_run_with_more_layers_a_block_begins_with_a_finished_model_and_one_with_fewer_is_refused(
    pictures, tmp_path, tiny
):
    def recipe(layers, **more):
        network = {"class": "UNet2DModel", "block_out_channels": [8, 16], "norm_num_groups": 4, **BY_TWOS}
        rest = {"learning_rate": 1e-9, "ema_half_life": 0, "checkpoint_every": 0, "validate_every": 0, **more}
        return tiny(network={**network, "layers_per_block": layers}, **rest)

    one_step, first = Limits(max_steps=1), tmp_path / "first/last"
    run.train(pictures, tmp_path / "first", recipe(1), one_step)
    run.train(pictures, tmp_path / "deeper", recipe(2, init=str(first)), one_step)
    finished, deeper = (read_bundle(path).load_network() for path in (first, tmp_path / "deeper/last"))
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([10, 700])
    with torch.no_grad():
        assert torch.allclose(deeper.eval()(x, t).sample, finished.eval()(x, t).sample, atol=1e-3)
    with pytest.raises(InvalidInput, match="unexpected keys"):
        run.train(pictures, tmp_path / "flat", recipe(1, init=str(tmp_path / "deeper/last")), one_step)
