"""A teacher: what a student learns in place of the clean image, so that one call is worth the guided two."""

from __future__ import annotations

from pathlib import Path

import torch

from ddpm_core.bundle import Bundle, read_bundle
from ddpm_core.denoiser import make_ready
from ddpm_core.errors import InvalidInput
from ddpm_core.training.pushed import Pushed, pushed_by_guide


def load_teacher(path: Path, weight: float, student: Bundle, device: torch.device, dtype: torch.dtype) -> Pushed:
    """Read a teacher for a student.

    Args:
        path: the teacher's bundle; a guide in it pushes.
        weight: how far, 1..3 (1 is not at all); 0 for the bundle's own.
        student: what the student will be.
        device: where the student is trained.
        dtype: what the teacher computes in.

    Raises:
        InvalidInput: pictures or a noise schedule other than the student's, or a weight without a guide; by name.
    """
    bundle = read_bundle(path)
    if bundle.shape != student.shape:
        raise _unfit(
            path, "makes pictures of {} × {} × {}".format(*bundle.shape), "{} × {} × {}".format(*student.shape)
        )
    if not bundle.schedule.is_like(student.schedule):
        raise _unfit(path, "has another noise schedule", "that of the recipe")
    if weight > 1 and bundle.manifest.guide is None:
        message = f"teacher_guide = {weight:g}: {path} has no guide."
        raise InvalidInput("no_guide", message, field="teacher_guide", given=weight, allowed="0 or 1")
    network = make_ready(bundle.load_network(), device, dtype)
    return pushed_by_guide(bundle, network, device, dtype, bundle, weight)


def _unfit(path: Path, why: str, allowed: str) -> InvalidInput:
    message = f"teacher = {path} {why}; it takes {allowed}."
    return InvalidInput("other_model", message, field="teacher", given=str(path), allowed=allowed)
