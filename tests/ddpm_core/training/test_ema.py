import pytest
import torch
from torch import nn

from ddpm_core.training.ema import Ema


def linear(value):
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, value)
    return network


def test_after_its_half_life_half_of_the_old_weight_is_left():
    ema, target = Ema(linear(1.0), half_life=80, ramp=0), linear(0.0)
    for step in range(1, 11):
        ema.update(target, 8, step * 8)
    assert ema.network.weight.item() == pytest.approx(0.5)


def test_early_in_a_run_the_random_start_is_soon_forgotten():
    slow, ramped, target = Ema(linear(1.0), 1e6, 0), Ema(linear(1.0), 1e6, 0.05), linear(0.0)
    for step in range(1, 101):
        slow.update(target, 8, step * 8)
        ramped.update(target, 8, step * 8)
    assert slow.network.weight.item() > 0.99
    assert ramped.network.weight.item() < 1e-6


def test_no_half_life_means_the_weights_themselves():
    ema = Ema(linear(1.0), 0, 0.05)
    ema.update(linear(0.25), 8, 8)
    assert ema.network.weight.item() == 0.25


def test_the_averaged_network_is_a_copy_that_is_never_trained():
    network = linear(1.0)
    ema = Ema(network, 100, 0)
    with torch.no_grad():
        network.weight.zero_()
    assert ema.network.weight.item() == 1.0
    assert not ema.network.weight.requires_grad
