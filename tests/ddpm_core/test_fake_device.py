"""The fake device is as strict as a GPU, as right as the CPU, and counts what a GPU would be asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fake_device import DEVICE, Counts, FakeDevice, counted


@pytest.fixture
def device() -> Iterator[FakeDevice]:
    with FakeDevice() as device:
        yield device


@pytest.fixture
def x(device: FakeDevice) -> Tensor:
    return torch.arange(6.0).view(2, 3).to(DEVICE)


def test_a_network_on_it_gives_the_cpus_values(device: FakeDevice) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 3, 1)).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        expected = network(x)
        found = network.to(DEVICE)(x.to(DEVICE))
    assert found.device == DEVICE
    assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        pytest.param(lambda x: x + 1, Counts(kernels=1), id="arithmetic"),
        pytest.param(lambda x: x.T[1:].unsqueeze(0), Counts(), id="views"),
        pytest.param(lambda x: torch.stack([x, x]), Counts(kernels=1), id="stack"),
        pytest.param(lambda x: x[[0]], Counts(kernels=1, uploads=1, waits=1), id="rows by a list"),
        pytest.param(lambda x: x[0].zero_(), Counts(kernels=1), id="in place"),
        pytest.param(lambda x: x.tolist(), Counts(downloads=1, waits=1), id="numbers"),
        pytest.param(lambda x: x.sum().item(), Counts(kernels=1, downloads=1, waits=1), id="a number"),
        pytest.param(lambda x: x.cpu(), Counts(downloads=1, waits=1), id="down"),
        pytest.param(lambda x: x.to("cpu", non_blocking=True), Counts(downloads=1), id="down, later"),
        pytest.param(lambda x: torch.ones(3).to(x), Counts(uploads=1, waits=1), id="up"),
        pytest.param(lambda x: torch.tensor([1], device=x.device), Counts(uploads=1, waits=1), id="numbers up"),
        pytest.param(lambda x: torch.ones(3, device=x.device), Counts(kernels=1), id="made there"),
        pytest.param(lambda x: x.half(), Counts(kernels=1), id="another dtype"),
        pytest.param(lambda x: x[0].copy_(torch.ones(3)), Counts(uploads=1, waits=1), id="copied in"),
        pytest.param(lambda x: x[x > 2], Counts(kernels=2, downloads=1, waits=1), id="rows by a mask"),
        pytest.param(lambda x: x * torch.tensor(2.0), Counts(kernels=1), id="times a number of the host"),
    ],
)
def test_it_counts(device: FakeDevice, x: Tensor, call: Callable[[Tensor], object], expected: Counts) -> None:
    assert counted(device, lambda: call(x)) == expected
    with device.aside():
        assert counted(device, lambda: call(x)) == Counts()


def test_it_counts_the_same_under_inference_mode(device: FakeDevice, x: Tensor) -> None:
    with torch.inference_mode():
        assert counted(device, lambda: F.linear(x, x).softmax(1)) == Counts(kernels=2)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda x: x + torch.ones(3), id="arithmetic"),
        pytest.param(lambda x: torch.stack([x, torch.ones(2, 3)]), id="stack"),
        pytest.param(lambda x: torch.ones(2, 3) @ x.T, id="product"),
        pytest.param(lambda x: x.index_add(0, torch.tensor([0]), x[:1]), id="index_add"),
        pytest.param(lambda x: torch.ones(3)[x[0].long()], id="rows of the host's tensor"),
    ],
)
def test_devices_do_not_mix(x: Tensor, call: Callable[[Tensor], object]) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        call(x)


def test_a_tensor_on_it_is_no_array(x: Tensor) -> None:
    with pytest.raises((RuntimeError, TypeError)):
        x.numpy()


def test_it_names_the_line_that_asked(device: FakeDevice, x: Tensor) -> None:
    x.cpu()
    assert [what for what, place in device.places if "test_fake_device.py" in place] == ["upload", "download"]


def test_outside_it_this_machine_has_no_such_accelerator() -> None:
    assert not torch.accelerator.is_available()
