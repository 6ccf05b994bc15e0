"""A teacher: what a student learns in place of the clean image, so that one call is worth the guided two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm_core.bundle import Bundle, read_bundle
from ddpm_core.denoiser import Denoiser, make_ready
from ddpm_core.errors import InvalidInput
from ddpm_core.guidance.auto import auto_displacement


@dataclass(frozen=True, eq=False)
class Teacher:
    """A denoiser pushed by its guide (Meng et al. 2023, "On distillation of guided diffusion models").

    Attributes:
        denoiser: the model and its guide.
        strength: (T+1,) float32, w − 1 a level; nought outside the guide's interval.
    """

    denoiser: Denoiser
    strength: Tensor

    @torch.no_grad()
    def unguided(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict clean images (B, C, H, W) from noisy ones at timesteps t (B,), not pushed."""
        return self.denoiser(x, t + 1)

    @torch.no_grad()
    def pushed(self, x: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """Give its own prediction r of noisy images x (B, C, H, W) at timesteps t (B,), moved from the guide's."""
        level = t + 1
        strength = self.strength.to(x.device)[level]
        which = strength.nonzero()[:, 0]
        if not len(which):
            return r
        x, level, own, strength = x[which], level[which], r[which], strength[which]
        return r.index_add(0, which, auto_displacement(own, self.denoiser.guided_by(x, level, own), strength))

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict clean images (B, C, H, W) from noisy ones at timesteps t (B,)."""
        return self.pushed(x, t, self.unguided(x, t))


@dataclass(frozen=True, eq=False)
class TwoTeachers:
    """Two teachers, each for the noise at which it is the better one (Balaji et al. 2022, "eDiff-I").

    Attributes:
        coarse: for much noise.
        fine: for little.
        share: (T+1,) float32, how much of the coarse one's prediction is taken at a level, 0..1.
    """

    coarse: Teacher
    fine: Teacher
    share: Tensor

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict as `Teacher` does."""
        share = self.share.to(x.device)[t + 1].view(-1, 1, 1, 1)
        r = torch.zeros_like(x)
        for teacher, weight in ((self.coarse, share), (self.fine, 1 - share)):
            asked = weight.flatten().nonzero()[:, 0]
            if len(asked):
                r[asked] += weight[asked] * teacher(x[asked], t[asked])
        return r


def shares(sigma: NDArray[np.float64], interval: tuple[float, float]) -> Tensor:
    """Give how much of a coarse teacher is taken at each level (T+1,): from 0 to 1 in ln σ within an interval of σ."""
    low, high = np.log(interval)
    return torch.from_numpy(((np.log(np.maximum(sigma, 1e-12)) - low) / (high - low)).clip(0, 1)).float()


def load_teacher(
    path: Path, weight: float, student: Bundle, device: torch.device, dtype: torch.dtype, *, field: str = "teacher"
) -> Teacher:
    """Read a teacher for a student.

    Args:
        path: the teacher's bundle; a guide in it pushes.
        weight: how far, 1..3 (1 is not at all); 0 for the bundle's own.
        student: what the student will be.
        device: where the student is trained.
        dtype: what the teacher computes in.
        field: the recipe's setting that names it, for errors.

    Raises:
        InvalidInput: pictures or a noise schedule other than the student's, or a weight without a guide; by name.
    """
    bundle = read_bundle(path)
    if bundle.shape != student.shape:
        makes, wanted = ("{} × {} × {}".format(*each.shape) for each in (bundle, student))
        raise _unfit(field, path, f"makes pictures of {makes}", wanted)
    ours, theirs = student.schedule.alpha_bar, bundle.schedule.alpha_bar
    if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=1e-6, atol=0):
        raise _unfit(field, path, "has another noise schedule", "that of the recipe")
    guide, push = bundle.load_guide(), bundle.manifest.guide
    if weight > 1 and push is None:
        message = f"teacher_guide = {weight:g}: {path} has no guide."
        raise InvalidInput("no_guide", message, field="teacher_guide", given=weight, allowed="0 or 1")
    network = bundle.load_network()
    denoiser = bundle.denoiser(
        make_ready(network, device, dtype), device, dtype, None if guide is None else make_ready(guide, device, dtype)
    )
    sigma = bundle.schedule.sigma_256(bundle.manifest.image_size)
    strength = np.zeros_like(sigma) if push is None else push.strength(sigma, weight or push.weight)
    return Teacher(denoiser, torch.from_numpy(strength).float())


def _unfit(field: str, path: Path, why: str, allowed: str) -> InvalidInput:
    message = f"{field} = {path} {why}; it takes {allowed}."
    return InvalidInput("other_model", message, field=field, given=str(path), allowed=allowed)
