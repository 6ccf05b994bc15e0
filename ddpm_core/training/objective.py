"""What the network is asked, and how its answer is judged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm_core.bands import Bands
from ddpm_core.denoiser import Prediction
from ddpm_core.errors import InvalidInput
from ddpm_core.grids import without_weave
from ddpm_core.guidance import EYES
from ddpm_core.schedule import NoiseSchedule
from ddpm_core.training.recipe import Loss

_MOUTH = (0.66, 0.84, 0.3, 0.7)  # as EYES


class Objective(nn.Module):
    """The training loss: (network, clean images) → a loss per image.

    Args:
        schedule: ᾱ per level.
        prediction: what the network predicts: ε, v or the clean image.
        loss: the distance between prediction and target.
        min_snr: γ of the Min-SNR weighting (Hang et al. 2023); 0 for none.
        stratified: spread timesteps evenly over a batch, which lowers the variance of the loss.
        shares: (T,) how often each timestep is drawn, 1 together (`timestep_shares`); None for all alike.
        patch: pixel-unshuffle factor in front of the network.
        bands: of the images, where the network works on bands.
        detail: the weight of detail's loss beside the coarse band's.
        emphasis: (h, w) what each cell that the network sees weighs, 1 on the average (`emphasis`); None for all alike.
        teacher: (noisy images, timesteps) → clean images, which are learnt in place of the true ones; None for none.
    """

    alpha_bar: Tensor
    signal: Tensor
    noise: Tensor
    drawn_up_to: Tensor
    emphasis: Tensor | None
    weight: Tensor

    def __init__(
        self,
        schedule: NoiseSchedule,
        prediction: Prediction,
        *,
        loss: Loss = Loss.MSE,
        min_snr: float = 5.0,
        stratified: bool = True,
        shares: NDArray[np.float64] | None = None,
        patch: int = 1,
        bands: Bands | None = None,
        detail: float = 0.2,
        emphasis: Tensor | None = None,
        teacher: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.prediction, self.loss, self.stratified, self.patch = prediction, loss, stratified, patch
        self.bands, self.detail, self.teacher = bands, detail, teacher
        a = torch.tensor(schedule.alpha_bar[1:])  # index is the timestep t = level − 1
        snr = a / (1 - a) * (1 if bands is None else 4)  # the coarse band has half of σ
        self.register_buffer("alpha_bar", a)
        self.register_buffer("signal", a.sqrt().float())
        self.register_buffer("noise", (1 - a).sqrt().float())
        even = np.full(schedule.num_levels, 1 / schedule.num_levels)
        self.register_buffer("drawn_up_to", torch.from_numpy(np.cumsum(even if shares is None else shares)))
        self.register_buffer("emphasis", emphasis)
        self.register_buffer("weight", _min_snr_weight(snr, prediction, min_snr).float())

    def timesteps(self, count: int) -> Tensor:
        """Draw `count` timesteps, (B,) int64, from torch's global generator."""
        device = self.signal.device
        u = torch.rand(count, device=device)
        if self.stratified:
            u = (torch.arange(count, device=device) + u) / count
        return torch.searchsorted(self.drawn_up_to, u.double(), right=True).clamp_(max=len(self.drawn_up_to) - 1)

    def forward(self, network: nn.Module, x0: Tensor, t: Tensor) -> Tensor:
        """Noise x0 (B, C, H, W) to timesteps t (B,), ask the network, and give the weighted loss (B,)."""
        x = self.noised(x0, t, torch.randn_like(x0))
        if self.teacher is not None:
            x0 = self.teacher(x, t)
        return self.loss_of(self.ask(network, x, t), x, x0, t)

    def noised(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Give clean images x0 (B, C, H, W) with noise at timesteps t (B,)."""
        return _each(self.signal, t) * x0 + _each(self.noise, t) * noise

    def sigma(self, t: Tensor) -> Tensor:
        """Give σ of timesteps t, noise over signal, (B, 1, 1, 1) float32."""
        return _each(self.noise, t) / _each(self.signal, t)

    def shown(self, x: Tensor, t: Tensor) -> Tensor:
        """Give what a network sees of noisy images x (B, C, H, W) at timesteps t (B,), in its own shape."""
        if self.bands is not None:
            x = self.bands.ask(x, _each(self.alpha_bar, t)).input
        if self.patch > 1:
            x = F.pixel_unshuffle(x, self.patch)
        return x.contiguous(memory_format=torch.channels_last)

    def ask(self, network: nn.Module, x: Tensor, t: Tensor) -> Tensor:
        """Give a network's answer to noisy images x (B, C, H, W) at timesteps t (B,), float32, in its own shape."""
        out = network(self.shown(x, t), t)
        answer: Tensor = out if isinstance(out, Tensor) else out.sample
        return answer.float()

    def clean(self, out: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Give the clean images (B, C, H, W) that an answer to noisy ones x at t means."""
        out = F.pixel_shuffle(out, self.patch) if self.patch > 1 else out
        if self.bands is not None:
            clean = self.bands.ask(x, _each(self.alpha_bar, t)).clean(out)
            return self.bands.join(without_weave(clean, self.patch))
        signal, noise = _each(self.signal, t), _each(self.noise, t)
        match self.prediction:
            case Prediction.EPSILON:
                return (x - noise * out) / signal
            case Prediction.V:
                return signal * x - noise * out
            case Prediction.SAMPLE:
                return out

    def loss_of(self, out: Tensor, x: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """Give the weighted loss (B,) of an answer to noisy images x at t whose clean ones are x0."""
        target = self._target(x, x0, t)
        if self.patch > 1:  # a permutation of pixels: the distance is the same on either side of it
            target = F.pixel_unshuffle(target, self.patch)
        distance = self._distance(out, target)
        if self.emphasis is not None:
            distance = distance * self.emphasis
        if self.bands is None:
            return self.weight[t] * distance.mean(dim=(1, 2, 3))
        coarse, detail = distance.tensor_split([distance.shape[1] // 4], dim=1)
        return self.weight[t] * coarse.mean(dim=(1, 2, 3)) + self.detail * detail.mean(dim=(1, 2, 3))

    def _target(self, x: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """Give the answer that means x0, before pixels are unshuffled."""
        if self.bands is not None:
            return self.bands.ask(x, _each(self.alpha_bar, t)).target(self.bands.split(x0))
        signal, noise = _each(self.signal, t), _each(self.noise, t)
        match self.prediction:
            case Prediction.EPSILON:
                return (x - signal * x0) / noise
            case Prediction.V:
                return (signal * x - x0) / noise
            case Prediction.SAMPLE:
                return x0

    def _distance(self, out: Tensor, target: Tensor) -> Tensor:
        match self.loss:
            case Loss.MSE:
                return F.mse_loss(out, target, reduction="none")
            case Loss.L1:
                return F.l1_loss(out, target, reduction="none")
            case Loss.HUBER:
                return F.huber_loss(out, target, reduction="none")


def _each(values: Tensor, t: Tensor) -> Tensor:
    """Give a number for every image, (B, 1, 1, 1)."""
    return values[t].view(-1, 1, 1, 1)


def emphasis(side: int, weight: float) -> Tensor:
    """Give what each cell of a human face in place (CelebA-HQ's framing) weighs, (side, side), 1 on the average.

    Eyes and mouth weigh `weight` times what the others do: a face is judged by them, and they are a fifth of it.
    """
    at = (torch.arange(side) + 0.5) / side
    weights = torch.ones(side, side)
    for top, bottom, left, right in (EYES, _MOUTH):
        weights[((top < at) & (at < bottom))[:, None] & ((left < at) & (at < right))] = weight
    return weights / weights.mean()


def _min_snr_weight(snr: Tensor, prediction: Prediction, gamma: float) -> Tensor:
    """Weight per timestep: min(SNR, γ) over what the prediction's own loss already weighs by."""
    if gamma == 0:
        return torch.ones_like(snr)
    capped = snr.clamp(max=gamma)
    match prediction:
        case Prediction.EPSILON:
            return capped / snr
        case Prediction.V:
            return capped / (snr + 1)
        case Prediction.SAMPLE:
            return capped


def timestep_shares(sigma: NDArray[np.float64], focus: float, interval: tuple[float, float]) -> NDArray[np.float64]:
    """Give how often each timestep is drawn, (T,): a share evenly in ln σ within an interval, the others evenly.

    Args:
        sigma: (T+1,) of the levels, as `NoiseSchedule.sigma_256` gives it.
        focus: the share.
        interval: the lowest and the highest σ.

    Raises:
        InvalidInput: no level lies between them.
    """
    even = np.full(len(sigma) - 1, 1 / (len(sigma) - 1))
    if focus == 0:
        return even
    low, high = interval
    width = np.diff(np.log(sigma[1:]), append=np.log(sigma[-1])) * ((low <= sigma[1:]) & (sigma[1:] <= high))
    if width.sum() == 0:
        allowed = f"{sigma[1]:.3g} to {sigma[-1]:.3g}"
        message = f"No noise level lies in focus_sigma = [{low:g}, {high:g}]; they are {allowed}."
        raise InvalidInput("out_of_range", message, field="focus_sigma", given=[low, high], allowed=allowed)
    shares: NDArray[np.float64] = (1 - focus) * even + focus * width / width.sum()
    return shares
