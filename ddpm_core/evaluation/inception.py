"""The Inception network that FID and KID are defined by, from a weight file that the user supplies.

Two files are in use and both are read:

- `pt_inception-2015-12-05-6726825d.pth`, the state dict of pytorch-fid: images are scaled to 299 px in torch;
- `inception-2015-12-05.pt`, the TorchScript of StyleGAN: called as `network(images, return_features=True)` with
  (B, 3, H, W) uint8, it scales them itself as TensorFlow did. This is the one closest to published figures.

torchvision's own weights are another network (1000 classes instead of 1008), so their distance is no FID: refused.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm_core.errors import InvalidInput

DIMENSIONS = 2048
_CLASSES = 1008
_SIDE = 299
_ALLOWED = "pt_inception-2015-12-05-6726825d.pth or inception-2015-12-05.pt"


def read_inception(file: Path, device: torch.device | str = "cpu") -> Callable[[Tensor], Tensor]:
    """Give the function from pictures, (B, H, W, 3) uint8, to features, (B, D) float32; D is 2048 with usual files.

    Raises:
        InvalidInput: no such file, another network, or keys that do not fit.
    """
    if not file.is_file():
        raise _refused(file, "there is no such file")
    if _is_torchscript(file):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # nothing else reads such a file
            script = torch.jit.load(str(file), map_location=device).eval()  # type: ignore[no-untyped-call]

        def run(pixels: Tensor) -> Tensor:
            images = pixels.to(device).permute(0, 3, 1, 2)
            features: Tensor = script(images, return_features=True)
            return features.float().flatten(1)
    else:
        network = Inception().eval().requires_grad_(False)
        _fit(network, _state_dict(file), file)
        network.to(device)

        def run(pixels: Tensor) -> Tensor:
            images = pixels.to(device).permute(0, 3, 1, 2).float() / 255
            images = F.interpolate(images, (_SIDE, _SIDE), mode="bilinear", align_corners=False)
            features: Tensor = network(2 * images - 1)
            return features

    return run


class Conv(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, padding: Any = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H', W')."""
        return F.relu(self.bn(self.conv(x)))


Step = tuple[str, int, int | tuple[int, int]]
"""Name, channels and kernel of a convolution."""


class Mixed(nn.Module):
    """An Inception block: chains of convolutions side by side, and a pooled one.

    Args:
        inputs: channels that come in.
        chains: of convolutions; the last element of a chain may be several steps that share what comes before.
        pooled: channels of the convolution after pooling; 0 for a block that halves the sides and only pools.
        pool: `average`, or `max` as the very last block of this network has it.
    """

    def __init__(
        self, inputs: int, chains: Sequence[Sequence[Step | list[Step]]], pooled: int, pool: str = "average"
    ) -> None:
        super().__init__()
        self.halves, self.pool = pooled == 0, pool
        self.chains: list[list[list[str]]] = []
        for chain in chains:
            channels, names = inputs, []
            for i, element in enumerate(chain):
                steps = element if isinstance(element, list) else [element]
                last = i == len(chain) - 1
                for name, outputs, kernel in steps:
                    halving = self.halves and last
                    padding = 0 if halving else tuple(k // 2 for k in _pair(kernel))
                    self.add_module(name, Conv(channels, outputs, kernel, 2 if halving else 1, padding))
                channels = steps[0][1]
                names.append([name for name, _, _ in steps])
            self.chains.append(names)
        if pooled:
            self.branch_pool = Conv(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H, W), or half the sides."""
        out = []
        for *before, ends in self.chains:
            h = x
            for (name,) in before:
                h = self.get_submodule(name)(h)
            out += [self.get_submodule(name)(h) for name in ends]
        if self.halves:
            out.append(F.max_pool2d(x, 3, 2))
        elif self.pool == "max":
            out.append(self.branch_pool(F.max_pool2d(x, 3, 1, 1)))
        else:
            out.append(self.branch_pool(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)))
        return torch.cat(out, 1)


class Inception(nn.Module):
    """Inception-v3 (Szegedy et al. 2016) as TensorFlow's FID graph has it, up to its 2048 pooled features."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _a(192, 32), _a(256, 64), _a(288, 64)
        self.Mixed_6a = Mixed(288, [[("branch3x3", 384, 3)], _double(64, 96, 96)], 0)
        self.Mixed_6b, self.Mixed_6c = _c(128), _c(160)
        self.Mixed_6d, self.Mixed_6e = _c(160), _c(192)
        self.Mixed_7a = Mixed(768, _D, 0)
        self.Mixed_7b, self.Mixed_7c = Mixed(1280, _E, 192), Mixed(2048, _E, 192, pool="max")

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 299, 299) in [−1, 1] → (B, 2048)."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean((2, 3))


def _double(first: int, middle: int, last: int) -> list[Step]:
    return [("branch3x3dbl_1", first, 1), ("branch3x3dbl_2", middle, 3), ("branch3x3dbl_3", last, 3)]


def _a(inputs: int, pooled: int) -> Mixed:
    five: list[Step] = [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)]
    one: list[Step] = [("branch1x1", 64, 1)]
    return Mixed(inputs, [one, five, _double(64, 96, 96)], pooled)


def _c(width: int) -> Mixed:
    row, column = (1, 7), (7, 1)
    seven: list[Step] = [("branch7x7_1", width, 1), ("branch7x7_2", width, row), ("branch7x7_3", 192, column)]
    names = [f"branch7x7dbl_{i}" for i in range(1, 6)]
    kernels = (1, column, row, column, row)
    twice: list[Step] = list(zip(names, (width, width, width, width, 192), kernels, strict=True))
    one: list[Step] = [("branch1x1", 192, 1)]
    return Mixed(768, [one, seven, twice], 192)


_D: list[list[Step]] = [
    [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3)],
    [
        ("branch7x7x3_1", 192, 1),
        ("branch7x7x3_2", 192, (1, 7)),
        ("branch7x7x3_3", 192, (7, 1)),
        ("branch7x7x3_4", 192, 3),
    ],
]
_E: list[list[Step | list[Step]]] = [
    [("branch1x1", 320, 1)],
    [("branch3x3_1", 384, 1), [("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1))]],
    [
        ("branch3x3dbl_1", 448, 1),
        ("branch3x3dbl_2", 384, 3),
        [("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))],
    ],
]


def _pair(kernel: int | tuple[int, int]) -> tuple[int, int]:
    return (kernel, kernel) if isinstance(kernel, int) else kernel


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any("/code/" in name for name in archive.namelist())


def _state_dict(file: Path) -> Mapping[str, Tensor]:
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # what is no pickle fails in many ways
        raise _refused(file, "it is neither a TorchScript nor a state dict of tensors") from None
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise _refused(file, "it is neither a TorchScript nor a state dict of tensors")
    return weights


def _fit(network: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    """Load what lies before the classifier; the classifier itself only tells which Inception this is."""
    classes = len(weights["fc.bias"]) if "fc.bias" in weights else None
    if classes is not None and classes != _CLASSES:
        raise _refused(
            file, f"it has {classes} classes instead of {_CLASSES}: another Inception, whose distance is no FID"
        )
    body = {key: value for key, value in weights.items() if not key.startswith(("fc.", "AuxLogits."))}
    wanted = {key: value.shape for key, value in network.state_dict().items() if "num_batches_tracked" not in key}
    missing = sorted(key for key, shape in wanted.items() if key not in body or body[key].shape != shape)
    unknown = sorted(body.keys() - network.state_dict().keys())
    if missing or unknown:
        what = f"missing or of another shape: {missing[0]}" if missing else f"unexpected: {unknown[0]}"
        raise _refused(file, f"it is another network; {len(missing) + len(unknown)} keys do not fit, {what}")
    network.load_state_dict(body, strict=False)


def _refused(file: Path, why: str) -> InvalidInput:
    return InvalidInput(
        "bad_inception",
        f"{file} cannot be used as the Inception network: {why}. Use {_ALLOWED}.",
        field="inception",
        given=str(file),
        allowed=_ALLOWED,
    )
