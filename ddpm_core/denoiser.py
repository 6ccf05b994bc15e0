"""The one way to a network: from a noisy image and its level to the raw predicted clean image."""

from __future__ import annotations

import copy
from collections.abc import Callable
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm_core.bands import Bands
from ddpm_core.grids import without_grid, without_weave
from ddpm_core.layers import exchange
from ddpm_core.schedule import NoiseSchedule
from ddpm_core.timing import in_turn

Call = Callable[[Tensor, Tensor], Tensor]
"""A network's call: its input (B, C, H, W) and timestep (B,) to its output, of the input's shape."""


class Prediction(StrEnum):
    """What the network was trained to predict, in diffusers' words."""

    EPSILON = "epsilon"
    V = "v_prediction"
    SAMPLE = "sample"


class Denoiser:
    """A network with its schedule: the prediction of the clean image at any noise level.

    Calling it with x (B, C, H, W) float32 and level (B,) int64 in 1..T gives r (B, C, H, W) float32, the raw
    predicted clean image: not clipped, which `clip` does. Rows are independent and may differ in level.

    Args:
        network: called as `network(x, timestep)`; gives a tensor or an object with `.sample`. Left as it is: see
            `make_ready`.
        schedule: the noise schedule that it was trained with.
        prediction: what the network predicts.
        patch: side of the pixel blocks that the network sees as channels (pixel-unshuffle); 1 for none.
        device: where the network is.
        dtype: the network's own precision; the arithmetic around it stays in float32.
        guide: a worse denoiser for autoguidance, of the same pictures or, with bands, of the coarse band alone; calling
            the denoiser does not use it.
        bands: of the pictures, where the network works on bands; its prediction is v.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: NoiseSchedule,
        prediction: Prediction,
        *,
        patch: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        guide: Denoiser | None = None,
        bands: Bands | None = None,
    ) -> None:
        self.schedule = schedule
        self.prediction = prediction
        self.patch = patch
        self.device = torch.device(device)
        self.dtype = dtype
        self.network = network
        self._call = called(network)
        self.guide = guide
        self.bands = bands
        self.clip = schedule.clip
        self._alpha_bar = torch.tensor(schedule.alpha_bar, dtype=torch.float64).to(self.device)

    def __call__(self, x: Tensor, level: Tensor) -> Tensor:
        """Predict r from x (B, C, H, W) at level (B,)."""
        a = self._alpha_bar.to(x.device)[level].view(-1, 1, 1, 1)
        if self.bands is not None:
            asked = self.bands.ask(x, a)
            return self.bands.join(without_weave(asked.clean(self.predict(asked.input, level)), self.patch))
        signal, noise = a.sqrt().to(x.dtype), (1 - a).sqrt().to(x.dtype)
        out = self.predict(x, level)
        match self.prediction:
            case Prediction.EPSILON:
                r = (x - noise * out) / signal
            case Prediction.V:
                r = signal * x - noise * out
            case Prediction.SAMPLE:
                r = out
        return without_grid(r, self.patch) if self.patch > 1 else r

    def guided_by(self, x: Tensor, level: Tensor, r: Tensor) -> Tensor:
        """Give the guide's r from x (B, C, H, W) at level (B,).

        Args:
            x: the noisy images.
            level: 1..T.
            r: this denoiser's own prediction, whose detail is kept where the guide knows the coarse band alone.

        Raises:
            ValueError: there is no guide.
        """
        if self.guide is None:
            raise ValueError("the table asks for a guide, and the denoiser has none")
        if self.bands is None or self.guide.bands is not None:
            return self.guide(x, level)
        a = self._alpha_bar.to(x.device)[level].view(-1, 1, 1, 1)
        return self.bands.with_coarse(r, self.guide(self.bands.coarse(x, a), level))

    def predict(self, x: Tensor, level: Tensor) -> Tensor:
        """Give the network's own output, in x's dtype: ε, v or x0 by `prediction`. Shape of x, which may be bands."""
        h = F.pixel_unshuffle(x, self.patch) if self.patch > 1 else x
        h = h.to(self.device, self.dtype, memory_format=torch.channels_last)
        out = self._call(h, (level - 1).to(self.device)).to(x.device, x.dtype)
        return F.pixel_shuffle(out, self.patch) if self.patch > 1 else out

    def called_by(self, call_of: Callable[[nn.Module], Call]) -> Denoiser:
        """Give the same denoiser with other ways to call its network and its guide's, such as `ddpm_core.graphs`."""
        other = copy.copy(self)
        other._call = call_of(self.network)
        other.guide = None if self.guide is None else self.guide.called_by(call_of)
        return other


def called(network: nn.Module) -> Call:
    """Give a network's own call; diffusers' ones give their output inside an object."""

    def call(x: Tensor, timestep: Tensor) -> Tensor:
        out = network(x, timestep)
        return out if isinstance(out, Tensor) else out.sample

    return call


def make_ready(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Bring a network itself into the form in which it samples: frozen, and on a CPU with layers made for it.

    Args:
        network: in float32; changed, and given back.
        device: where it will run.
        dtype: its own precision from here on.
    """
    if device.type == "cpu":
        exchange(network, dtype)
    network.eval().requires_grad_(False)
    # channels_last: halves the time of a float32 convolution on a CPU, and tensor cores want it.
    return nn.Module.to(network, device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@torch.inference_mode()
def fastest_dtype(network: nn.Module, example: Tensor, device: torch.device) -> torch.dtype:
    """Choose float32 or bfloat16 for the network by timing both on this machine.

    bfloat16 is several times faster where the hardware has it and far slower where it has not; no flag tells how much.

    Args:
        network: in float32; left as it is.
        example: (B, C, H, W) input of the network.
        device: where it will run.
    """

    def trial(dtype: torch.dtype) -> Callable[[], object]:
        copied = make_ready(copy.deepcopy(network), device, dtype)
        x = example.to(device, dtype, memory_format=torch.channels_last)
        return lambda: copied(x, torch.zeros(len(x), dtype=torch.long, device=device))

    plain, short = trial(torch.float32), trial(torch.bfloat16)
    try:
        short()
    except RuntimeError:
        return torch.float32  # brought code that works in float32 alone
    # The fastest of several calls counts: other work on the machine can only slow a call down.
    seconds = [min(times) for times in in_turn([plain, short], 6, budget=1.0)]
    return torch.bfloat16 if seconds[1] < seconds[0] else torch.float32
