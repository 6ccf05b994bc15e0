"""How near a finished image is to its selfie, as one figure."""

from __future__ import annotations

import torch

from ddpm_core.ranking import resemblance

TARGET = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1)) - 0.5


def test_the_selfie_itself_is_at_1_and_its_negative_at_0() -> None:
    flat = torch.ones(3, 64, 64)
    assert resemblance(torch.stack([flat, -flat]), flat).tolist() == [1.0, 0.0]


def test_it_falls_with_the_distance_of_the_coarse_structure() -> None:
    scores = resemblance(torch.stack([TARGET + shift for shift in (0.0, 0.1, 0.2, 0.4)]), TARGET).tolist()
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4


def test_fine_detail_hardly_counts() -> None:
    checkers = 0.2 * (-1.0) ** (torch.arange(64)[:, None] + torch.arange(64))
    detailed, shifted = resemblance(torch.stack([TARGET + checkers, TARGET + 0.2]), TARGET)
    assert detailed > 0.99 > shifted
