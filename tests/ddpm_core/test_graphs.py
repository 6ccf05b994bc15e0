"""Replayed calls: padded to a size, the same pictures, and left where they fail – by a stand-in for CUDA's graphs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm_core import graphs, wholeness
from ddpm_core.bundle import Bundle
from ddpm_core.bundle.networks import build_network
from ddpm_core.denoiser import Call, Denoiser, Prediction, called
from ddpm_core.dtypes import pictures
from ddpm_core.graphs import Recording, Replayed, compiled, quickened

from .conftest import SIDE, TinyNetwork
from .fake_device import DEVICE, FakeDevice, counted


def computed_again(call: Call, x: Tensor, timestep: Tensor) -> Recording:
    """Record as a GPU does: buffers that stay where they are, and a call that knows nothing else."""
    out = call(x, timestep)
    return Recording(x, timestep, out, lambda: out.copy_(call(x, timestep)))


class Watched(TinyNetwork):
    """A network that notes the sizes of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return super().forward(x, timestep)


def batch(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, SIDE, SIDE, generator=generator).to(memory_format=torch.channels_last)
    return x, torch.arange(rows) * 7


@pytest.fixture
def pair(tiny_bundle: Bundle) -> Denoiser:
    """A network and its guide."""
    guide = Denoiser(TinyNetwork(), tiny_bundle.schedule, Prediction.EPSILON)
    return Denoiser(Watched(), tiny_bundle.schedule, Prediction.EPSILON, guide=guide)


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say how long replayed calls take, in plain ones: those of the network's own kernels, and of Inductor's."""

    def set_speeds(own: float, inductor: float = 1.0) -> None:
        shares = iter([own, inductor])

        def in_turn(calls: Sequence[Callable[[], object]], repeats: int, *, budget: float) -> list[list[float]]:
            for call in calls:
                call()
            return [[next(shares)], [1.0]]

        monkeypatch.setattr(graphs, "in_turn", in_turn)

    # Compiling is tried by itself: test_inductors_kernels_compute_the_same.
    monkeypatch.setitem(graphs._KERNELS, "CUDA graphs of Inductor's kernels", lambda network: network)
    set_speeds(0.5)
    return set_speeds


def test_a_batch_is_padded_to_the_next_power_of_two() -> None:
    network = Watched()
    replayed = Replayed(network, computed_again)
    for rows in (1, 2, 3, 5, 8, 9):
        assert replayed(*batch(rows)).shape == (rows, 3, SIDE, SIDE)
    assert set(network.sizes) == {1, 2, 4, 8, 16}


@torch.inference_mode()
def test_what_it_is_padded_with_changes_no_bit() -> None:
    network = TinyNetwork()
    replayed = Replayed(network, computed_again)
    x, timestep = batch(5)
    padded = torch.cat([x, torch.zeros(3, 3, SIDE, SIDE)]).to(memory_format=torch.channels_last)
    expected = network(padded, torch.cat([timestep, torch.zeros(3, dtype=torch.long)]))[:5]
    assert torch.equal(replayed(x, timestep), expected)
    replayed(*batch(8, seed=1))  # its rows are the padding now
    replayed(torch.full((6, 3, SIDE, SIDE), torch.nan), torch.zeros(6, dtype=torch.long))
    assert torch.equal(replayed(x, timestep), expected)


def test_an_output_stays_when_the_next_call_is_made() -> None:
    replayed = Replayed(TinyNetwork(), computed_again)
    first = replayed(*batch(2))
    kept = first.clone()
    replayed(*batch(2, seed=1))
    assert torch.equal(first, kept)


def test_all_sizes_are_recorded_before_serving_for_the_guide_too(
    tiny_bundle: Bundle, pair: Denoiser, speeds: Callable[..., None]
) -> None:
    recorded: list[int] = []

    def record(call: Call, x: Tensor, timestep: Tensor) -> Recording:
        recorded.append(len(x))
        return computed_again(call, x, timestep)

    fast = quickened(tiny_bundle, pair, 8, record)
    assert recorded[:8] == [8, 8, 4, 4, 2, 2, 1, 1]
    assert fast is not pair
    before = len(recorded)
    for rows in range(1, 9):
        x, _ = batch(rows)
        level = torch.full((rows,), 400)
        with torch.inference_mode():
            r = fast(x, level)
            assert torch.allclose(r, pair(x, level), atol=1e-5)
            assert torch.allclose(fast.guided_by(x, level, r), pair.guided_by(x, level, r), atol=1e-5)
    assert len(recorded) == before


def test_it_makes_the_same_pictures(tiny_bundle: Bundle, pair: Denoiser, speeds: Callable[..., None]) -> None:
    found, expected = (pictures(tiny_bundle, each) for each in (quickened(tiny_bundle, pair, 8, computed_again), pair))
    assert found is not None
    assert expected is not None
    assert np.abs(found - expected).max() <= 1


def cannot(call: Call, x: Tensor, timestep: Tensor) -> Recording:
    raise torch.AcceleratorError("CUDA error: operation not permitted when stream is capturing\nCompile with …")


def forgets(call: Call, x: Tensor, timestep: Tensor) -> Recording:
    return Recording(x, timestep, call(x, timestep), lambda: None)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (cannot, "AcceleratorError: CUDA error: operation not permitted"),
        (forgets, "ValueError: it makes other pictures"),
    ],
)
def test_what_fails_or_makes_other_pictures_is_left_with_a_line(
    tiny_bundle: Bundle,
    pair: Denoiser,
    speeds: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    record: graphs.Record,
    why: str,
) -> None:
    assert quickened(tiny_bundle, pair, 4, record) is pair
    said = [entry.message for entry in caplog.records if entry.levelno == logging.WARNING]
    assert [line.startswith("CUDA graphs") and why in line and "\n" not in line for line in said] == [True, True]


@pytest.mark.parametrize(("own", "inductor", "recordings"), [(1.1, 1.2, 0), (0.5, 0.6, 1), (0.5, 0.4, 2)])
def test_the_fastest_is_taken(
    tiny_bundle: Bundle,
    pair: Denoiser,
    speeds: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    own: float,
    inductor: float,
    recordings: int,
) -> None:
    speeds(own, inductor)
    kinds = {name: partial(_marked, name) for name in graphs._KERNELS}
    monkeypatch.setattr(graphs, "_KERNELS", kinds)
    taken = quickened(tiny_bundle, pair, 2, computed_again)
    expected = [None, *kinds][recordings]
    assert getattr(taken._call, "_network", pair.network).__dict__.get("mark") == expected


def _marked(name: str, network: torch.nn.Module) -> torch.nn.Module:
    marked = TinyNetwork()
    marked.mark = name  # type: ignore[assignment]
    return marked


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # Inductor's own
@torch.inference_mode()
def test_inductors_kernels_compute_the_same() -> None:
    network = TinyNetwork()
    replayed = Replayed(compiled(network), computed_again)
    for rows in (2, 3):
        x, timestep = batch(rows)
        assert torch.allclose(replayed(x, timestep), network(x, timestep), atol=1e-5)


def test_features_are_read_out_of_a_network_that_computes(tiny_bundle: Bundle) -> None:
    from .test_wholeness import Hourglass

    denoiser = Denoiser(Hourglass(), tiny_bundle.schedule, Prediction.SAMPLE)
    x, _ = batch(3)
    found = [
        wholeness.features(each, x, rows=4)
        for each in (denoiser, denoiser.called_by(partial(Replayed, record=computed_again)))
    ]
    assert found[0] is not None
    assert found[1] is not None
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", ["AttentionUNet", "UNet2DModel"])
def test_networks_ask_for_nothing_that_a_graph_cannot_record(kind: str) -> None:
    """A copy to or from the host has no place in a graph."""
    settings = {
        "AttentionUNet": {"channels": 3, "widths": [8, 8], "middle": 8, "heads": 2},
        "UNet2DModel": {"sample_size": 16, "block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 4}
        | {"down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]},
    }
    network = build_network({"_class_name": kind, **settings[kind]}).eval()
    with FakeDevice() as device, torch.inference_mode():
        network.to(DEVICE)
        x, timestep = (each.to(DEVICE) for each in batch(2))
        called(network)(x, timestep)
        asked = counted(device, partial(called(network), x, timestep))
    assert (asked.uploads, asked.downloads, asked.waits) == (0, 0, 0)


def test_a_device_is_asked_for_three_copies_more_and_never_waited_for() -> None:
    with FakeDevice() as device, torch.inference_mode():
        network = TinyNetwork().to(DEVICE)
        replayed = Replayed(network, computed_again)
        x, timestep = (each.to(DEVICE) for each in batch(5))
        replayed(x, timestep)
        plain, now = (counted(device, partial(each, x, timestep)) for each in (network, replayed))
    assert (now.uploads, now.downloads, now.waits) == (0, 0, 0)
    assert now.kernels == plain.kernels + 3 + 1  # the stand-in copies its output once more
