"""A GPU's number format: float16 where it makes the pictures of float32, else bfloat16, else float32; and by time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ddpm_core import dtypes
from ddpm_core.bundle import Bundle
from ddpm_core.denoiser import Prediction
from ddpm_core.dtypes import choose_dtype

from .fake_device import DEVICE, FakeDevice

Times = Callable[[float], None]


class Constant(nn.Module):
    """A network that predicts one picture, by arithmetic that a format may not bear."""

    def __init__(self, by: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.by, self.rows = by, set[int]()
        self.zero = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        self.rows.add(len(x))
        return self.by(x * self.zero + 0.5)

    def __deepcopy__(self, _: object) -> Constant:
        copied = Constant(self.by)
        copied.rows = self.rows
        return copied


def exact(half: Tensor) -> Tensor:
    return half


def large(half: Tensor) -> Tensor:
    return half * 2.0**17 / 2.0**17  # beyond float16


def small(half: Tensor) -> Tensor:
    return half + 1000.3 - 1000.5  # a fifth of a grey level is lost in float32, tens in 16 bit


def of_its_own(half: Tensor) -> Tensor:
    if half.dtype != torch.float32:
        raise RuntimeError("expected scalar type Float but found Half")
    return half


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    """Say how many times faster 16 bit are."""

    def set_speed(speed: float) -> None:
        def in_turn(calls: Sequence[Callable[[], object]], repeats: int, *, budget: float) -> list[list[float]]:
            for call in calls:
                call()
            return [[1.0], [speed]]

        monkeypatch.setattr(dtypes, "in_turn", in_turn)

    set_speed(2.0)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: True)
    return set_speed


@pytest.fixture(autouse=True)
def device() -> Iterator[FakeDevice]:
    with FakeDevice() as device:
        yield device


@pytest.fixture
def bundle(tiny_bundle: Bundle) -> Bundle:
    return replace(tiny_bundle, manifest=tiny_bundle.manifest.model_copy(update={"prediction_type": Prediction.SAMPLE}))


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (exact, torch.float16),
        (large, torch.bfloat16),
        (small, torch.float32),
        (of_its_own, torch.float32),
    ],
)
def test_the_first_that_makes_the_same_pictures_is_taken(
    bundle: Bundle, times: Times, by: Callable[[Tensor], Tensor], expected: torch.dtype
) -> None:
    network = Constant(by)
    assert choose_dtype(bundle, network, None, DEVICE) == expected
    assert network.zero.device.type == "cpu"


def test_a_gpu_that_only_imitates_bfloat16_is_not_asked_for_it(
    bundle: Bundle, times: Times, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: including_emulation)
    assert choose_dtype(bundle, Constant(large), None, DEVICE) == torch.float32
    assert choose_dtype(bundle, Constant(exact), None, DEVICE) == torch.float16


def test_a_format_that_is_slower_is_not_taken(bundle: Bundle, times: Times) -> None:
    times(0.9)
    assert choose_dtype(bundle, Constant(exact), None, DEVICE) == torch.float32


def test_time_is_taken_at_a_serving_batch_or_the_largest_that_fits(bundle: Bundle, times: Times) -> None:
    def small_memory(half: Tensor) -> Tensor:
        if len(half) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return half

    network = Constant(exact)
    choose_dtype(bundle, network, None, DEVICE)
    assert max(network.rows) == 64
    network = Constant(small_memory)
    assert choose_dtype(bundle, network, None, DEVICE) == torch.float16
    assert network.rows == {8, 16, 32, 64}


def test_a_device_that_is_lost_meanwhile_is_no_reason_for_another_format(bundle: Bundle, times: Times) -> None:
    def lost(half: Tensor) -> Tensor:
        if half.dtype == torch.float16:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        return half

    with pytest.raises(torch.AcceleratorError):
        choose_dtype(bundle, Constant(lost), None, DEVICE)


def test_the_guide_counts_too(bundle: Bundle, times: Times, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddpm_core.bundle import Guide

    pushed = replace(
        bundle, manifest=bundle.manifest.model_copy(update={"guide": Guide(weight=2, interval=(0.01, 1000))})
    )
    monkeypatch.setattr(Bundle, "_guide_kind", lambda self: self)
    assert choose_dtype(pushed, Constant(exact), Constant(exact), DEVICE) == torch.float16
    assert choose_dtype(pushed, Constant(exact), Constant(large), DEVICE) == torch.bfloat16
