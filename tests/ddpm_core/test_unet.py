import math

import pytest
import torch
from torch.nn import functional as F

from ddpm_core.denoiser import Denoiser, Prediction
from ddpm_core.errors import InvalidInput
from ddpm_core.sampling import SampleState, ddim, noise, sample
from ddpm_core.schedule import linear
from ddpm_core.training.objective import Objective
from ddpm_core.unet import AttentionUNet, time_code

SMALL = {"widths": (8, 16, 16), "middle": 16}


def test_the_default_is_the_dogs_network_of_93417859_parameters():
    with torch.device("meta"):
        network = AttentionUNet()
    assert sum(parameter.numel() for parameter in network.parameters()) == 93_417_859


def test_its_parts_have_the_names_that_checkpoints_of_that_network_have():
    with torch.device("meta"):
        keys = AttentionUNet().state_dict().keys()
    expected = {
        "conv0.double_conv.0.weight",
        "down4.maxpool_conv.2.double_conv.4.bias",
        "down1.emb_layer.1.weight",
        "sa8.attention.in_proj_weight",
        "conv1.2.double_conv.3.weight",
        "up1.conv.1.double_conv.0.weight",
        "sa5.seq.3.bias",
        "output.bias",
    }
    assert expected <= keys


def test_the_dogs_network_trains_a_few_steps_and_is_sampled():
    torch.manual_seed(0)
    network = AttentionUNet()
    objective = Objective(linear(), Prediction.EPSILON)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)
    x0, t = torch.zeros(2, 3, 16, 16), torch.tensor([300, 700])
    losses = []
    for _ in range(3):
        torch.manual_seed(1)
        loss = objective(network, x0, t).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]

    schedule = linear()
    table = ddim(schedule, schedule.karras(schedule.num_levels, 2))
    image = sample(
        Denoiser(network, schedule, Prediction.EPSILON), [SampleState(table, seed=0, x=noise(0, 0, (3, 16, 16)))]
    )
    assert image.shape == (1, 3, 16, 16)
    assert image.isfinite().all()


def test_rows_are_independent_and_each_has_its_own_timestep():
    network = AttentionUNet(**SMALL).eval()
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([0, 999])
    with torch.no_grad():
        both, second = network(x, t), network(x[1:], t[1:])
        other_time = network(x[1:], t[:1])
    torch.testing.assert_close(both[1:], second)
    assert not torch.allclose(second, other_time)


def test_all_of_it_is_trained_but_the_attention_that_the_original_never_calls():
    network = AttentionUNet(**SMALL)
    F.mse_loss(network(torch.randn(2, 3, 16, 16), torch.tensor([5, 6])), torch.zeros(2, 3, 16, 16)).backward()
    untrained = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is None}
    assert untrained == {"sa4"}
    assert not any(p.requires_grad for p in network.get_submodule("sa4").parameters())


def test_a_side_that_cannot_be_halved_often_enough_is_refused():
    with pytest.raises(ValueError, match=r"\(16, 18\) must be multiples of 4"):
        AttentionUNet(**SMALL)(torch.zeros(1, 3, 16, 18), torch.tensor([1]))


@pytest.mark.parametrize("widths", [(), (8,), (8, 16), (8, 16, 32)])
def test_widths_that_cannot_run_are_refused(widths):
    with pytest.raises(InvalidInput, match="the last two are equal") as caught:
        AttentionUNet(widths=widths)
    assert caught.value.given == list(widths)


def test_its_config_makes_the_same_network_again():
    network = AttentionUNet(channels=1, widths=(8, 8), middle=12, heads=2)
    settings = {key: value for key, value in network.config.items() if not key.startswith("_")}
    again = AttentionUNet(**settings)
    shapes = [{k: v.shape for k, v in n.state_dict().items()} for n in (network, again)]
    assert shapes[0] == shapes[1]


def test_the_time_code_is_sines_then_cosines_from_one_radian_a_step_downwards():
    code = time_code(torch.tensor([0, 2]))
    assert code.shape == (2, 256)
    assert code[0].tolist() == [0.0] * 128 + [1.0] * 128
    torch.testing.assert_close(code[1, [0, 128]], torch.tensor([math.sin(2), math.cos(2)]))
    torch.testing.assert_close(code[1, 127], torch.tensor(math.sin(2 / 10000 ** (254 / 256))))
