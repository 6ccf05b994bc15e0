"""Image features of the model's own: what its deepest stage makes of a picture with a little noise on it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ddpm_core.bundle import WEIGHTS, sha256
from ddpm_core.evaluation.extractor import Extractor
from ddpm_core.pipeline import Pipeline
from ddpm_core.pixels import to_tensor
from ddpm_core.sampling import noise

NAME = "denoiser"
SIGMA_256 = 1.0
_AT_ONCE = 8  # on a CPU larger batches are slower


def denoiser_extractor(pipeline: Pipeline) -> Extractor:
    """Make the extractor of a model's own features (DDAE, Xiang et al. 2023).

    The picture and its mirror image are noised to σ = 1 (of 256 px), always by the same noise; the activations where
    the network's pictures are smallest are averaged over place and over the two.
    """
    denoiser, shape = pipeline.denoiser, pipeline.bundle.shape
    level = denoiser.schedule.level_at(SIGMA_256, pipeline.bundle.manifest.image_size)
    a = float(denoiser.schedule.alpha_bar[level])
    z = noise(0, 0, shape).to(denoiser.device)
    stage = deepest(denoiser.network, lambda: denoiser(z[None], torch.tensor([level], device=denoiser.device)))

    def run(pixels: Tensor) -> Tensor:
        return torch.cat([few(part) for part in torch.split(pixels, _AT_ONCE)])

    def few(pixels: Tensor) -> Tensor:
        clean = torch.stack([to_tensor(picture, shape[0]) for picture in pixels.cpu().numpy()]).to(denoiser.device)
        both = torch.cat([clean, clean.flip(-1)])
        caught: list[Tensor] = []
        hook = stage.register_forward_hook(lambda _module, _given, out: caught.append(out))
        try:
            denoiser(a**0.5 * both + (1 - a) ** 0.5 * z, torch.full((len(both),), level, device=denoiser.device))
        finally:
            hook.remove()
        pooled = caught[-1].float().mean((2, 3))
        return (pooled[: len(clean)] + pooled[len(clean) :]) / 2

    version = f"{sha256(pipeline.bundle.path / WEIGHTS)[:16]}, {pipeline.denoiser.dtype}".replace("torch.", "")
    return Extractor(NAME, version, run, True, denoiser.device)


@torch.inference_mode()
def deepest(network: nn.Module, call: Callable[[], object]) -> nn.Module:
    """Give the last module of a network whose output is a picture of the smallest side in it.

    Args:
        network: any convolutional network.
        call: runs it once.
    """
    sides: list[tuple[int, nn.Module]] = []

    def look(module: nn.Module, _given: object, out: object) -> None:
        if isinstance(out, Tensor) and out.ndim == 4:
            sides.append((out.shape[-1], module))

    hooks = [module.register_forward_hook(look) for module in network.modules()]
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    smallest = min(side for side, _ in sides)
    return next(module for side, module in reversed(sides) if side == smallest)
