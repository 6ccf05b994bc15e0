"""Muon: matrices by the orthogonal part of their momentum, all else as AdamW."""

import copy

import pytest
import torch
from torch import nn

from ddpm_core.training.optimizer import Muon, make_optimizer, orthogonal
from ddpm_core.training.recipe import Recipe

_SETTINGS = {"learning_rate": 1e-2, "betas": (0.9, 0.99)}


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(8 * 4 * 4, 5))


def _steps(network: nn.Module, optimizer: torch.optim.Optimizer, count: int, *, first: int = 0) -> nn.Module:
    for i in range(first, first + count):
        torch.manual_seed(i)
        network(torch.randn(4, 3, 6, 6)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return network


@pytest.mark.parametrize("shape", [(8, 8), (5, 40), (40, 5), (1, 9)])
def test_the_singular_values_of_any_matrix_become_alike(shape):
    torch.manual_seed(0)
    for size in (1e-6, 1.0, 1e6):
        values = torch.linalg.svdvals(orthogonal(size * torch.randn(shape)))
        assert 0.6 < values.min() <= values.max() < 1.3


def test_a_gradient_of_nought_moves_nothing():
    assert torch.equal(orthogonal(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_a_matrix_moves_by_a_fifth_of_the_rate_however_large_its_gradient():
    for size in (1e-4, 1e4):
        weight = nn.Parameter(torch.zeros(16, 4, 3, 3))
        weight.grad = size * torch.randn(16, 4, 3, 3)
        Muon([weight], lr=0.1, betas=(0.9, 0.99), weight_decay=0).step()
        assert weight.square().mean().sqrt().item() == pytest.approx(0.02, rel=0.2)


def test_what_is_no_matrix_moves_as_by_adamw():
    ours, theirs = nn.Parameter(torch.ones(7)), nn.Parameter(torch.ones(7))
    muon = Muon([ours], lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1)
    adamw = torch.optim.AdamW([theirs], lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1)
    for i in range(5):
        torch.manual_seed(i)
        ours.grad = torch.randn(7)
        theirs.grad = ours.grad.clone()
        muon.step()
        adamw.step()
    torch.testing.assert_close(ours, theirs)


def test_weights_decay_towards_nought():
    weight = nn.Parameter(torch.ones(3, 3))
    weight.grad = torch.zeros(3, 3)
    Muon([weight], lr=0.1, betas=(0.9, 0.99), weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), torch.full((3, 3), 0.95))


def test_it_goes_on_from_its_state_as_if_it_had_not_stopped():
    recipe = Recipe(optimizer="muon", **_SETTINGS)
    network = _network()
    whole = _steps(network, make_optimizer(recipe, network), 6)

    network = _network()
    optimizer = make_optimizer(recipe, network)
    _steps(network, optimizer, 3)
    state = copy.deepcopy(optimizer.state_dict())
    optimizer = make_optimizer(recipe, network)
    optimizer.load_state_dict(state)
    _steps(network, optimizer, 3, first=3)

    for ours, theirs in zip(network.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_how_kernels_lie_in_memory_changes_nothing():
    recipe = Recipe(optimizer="muon", **_SETTINGS)
    plain, turned = _network(), _network().to(memory_format=torch.channels_last)
    _steps(plain, make_optimizer(recipe, plain), 2)
    _steps(turned, make_optimizer(recipe, turned), 2)
    for ours, theirs in zip(turned.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_either_learns(name):
    network = _network()
    pictures = torch.randn(64, 3, 6, 6)
    before = network(pictures).square().mean().item()
    after = _steps(network, make_optimizer(Recipe(optimizer=name, **_SETTINGS), network), 30)(pictures).square().mean()
    assert after.item() < before / 2
