"""What a tick asks of a GPU beside its network, by mode; and it computes there what it computes on a CPU.

A copy for which the host waits costs a launch-bound network more than its arithmetic: there is none. Kernels are
bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ddpm_core import events
from ddpm_core.bundle import Bundle, Guide
from ddpm_core.denoiser import Denoiser, Prediction
from ddpm_core.engine import StepEngine
from ddpm_core.plan import Plan, make_plan
from ddpm_core.schedule import NoiseSchedule

from .conftest import TinyNetwork
from .fake_device import DEVICE, Counts, FakeDevice, counted


class Aside(nn.Module):
    """A network that is not counted."""

    def __init__(self, network: nn.Module, device: FakeDevice) -> None:
        super().__init__()
        self.network, self.device = network, device

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        with self.device.aside():
            out: Tensor = self.network(x, timestep)
            return out


MODES = {
    "none": {"mode": "none", "sampler": "dpmpp_2m"},
    "ddpm": {"mode": "none", "sampler": "ddpm"},
    "ddim": {"mode": "none", "sampler": "ddim", "eta": 0.5},
    "likeness": {"mode": "likeness", "sampler": "dpmpp_2m"},
    "likeness ddpm": {"mode": "likeness", "sampler": "ddpm"},
    "pixel": {"mode": "pixel"},
    "pushed by a guide": {"mode": "likeness", "sampler": "ddpm", "guide": 2.0},
}
KERNELS = {
    "none": 45,
    "ddpm": 55,
    "ddim": 55,
    "likeness": 125,
    "likeness ddpm": 135,
    "pixel": 60,
    "pushed by a guide": 150,
}
"""The most that a tick may launch beside its networks, whatever its rows, also when images leave."""
STEPS = 5


@pytest.fixture
def device() -> Iterator[FakeDevice]:
    with FakeDevice() as device:
        yield device


@pytest.fixture
def bundle(tiny_bundle: Bundle) -> Bundle:
    manifest = tiny_bundle.manifest.model_copy(update={"guide": Guide(weight=1, interval=(0.01, 1000))})
    return replace(tiny_bundle, manifest=manifest)


def denoiser(schedule: NoiseSchedule, device: FakeDevice, where: torch.device) -> Denoiser:
    network, guide = (Aside(TinyNetwork().to(where), device) for _ in range(2))
    with torch.no_grad():
        guide.network.conv.weight *= 0.5
    worse = Denoiser(guide, schedule, Prediction.EPSILON, device=where)
    return Denoiser(network, schedule, Prediction.EPSILON, device=where, guide=worse)


def planned(bundle: Bundle, target: np.ndarray, mode: str, rows: int) -> Plan:
    how = MODES[mode]
    pixels = None if how["mode"] == "none" else target
    return make_plan(bundle, pixels, seed=3, num_images=rows, num_inference_steps=STEPS, **how)  # type: ignore[arg-type]


def ticks(engine: StepEngine, device: FakeDevice, plan: Plan) -> list[Counts]:
    """Give what each tick of a request asks for."""
    counts = []
    engine.admit("a", plan)
    while len(engine):
        before = device.counts
        engine.tick()
        counts.append(device.counts - before)
    return counts


@pytest.mark.parametrize("mode", MODES)
def test_a_tick_asks_for_as_much_for_two_images_as_for_many(
    bundle: Bundle, target: np.ndarray, device: FakeDevice, mode: str
) -> None:
    """One copy goes up, one comes down, and nobody waits for either: only who reads what came down does."""
    warm, few, many = (
        ticks(StepEngine(denoiser(bundle.schedule, device, DEVICE), max_rows=64), device, plan)
        for plan in (planned(bundle, target, mode, rows) for rows in (2, 2, 16))
    )
    assert many == few
    assert max(counts.kernels for counts in many) <= KERNELS[mode]
    assert {(counts.uploads, counts.downloads, counts.waits) for counts in many[1:]} == {(1, 1, 0)}
    assert len(warm) == STEPS


def test_so_it_does_when_requests_of_all_modes_share_it(bundle: Bundle, target: np.ndarray, device: FakeDevice) -> None:
    def together(rows: int) -> Counts:
        engine = StepEngine(denoiser(bundle.schedule, device, DEVICE), max_rows=200)
        for mode in MODES:
            engine.admit(mode, planned(bundle, target, mode, rows))
        engine.tick()
        return counted(device, engine.tick)

    warm, few, many = (together(rows) for rows in (2, 2, 16))
    assert few == many
    assert (many.uploads, many.downloads, many.waits) == (1, 1, 0)
    assert many.kernels <= sum(KERNELS.values()) / 2
    assert warm.downloads == 1


@pytest.mark.parametrize("mode", MODES)
def test_it_makes_the_cpus_images(bundle: Bundle, target: np.ndarray, device: FakeDevice, mode: str) -> None:
    made = []
    for where in (torch.device("cpu"), DEVICE):
        engine = StepEngine(denoiser(bundle.schedule, device, where), max_rows=2)
        engine.admit("a", planned(bundle, target, mode, 3), preview_every=2)
        happened = [event for _ in range(STEPS) for _, event in engine.tick()]
        made.append([event.pixels for event in happened if isinstance(event, events.Preview | events.Image)])
    assert len(made[0]) == 9
    for expected, found in zip(*made, strict=True):
        np.testing.assert_array_equal(found, expected)
