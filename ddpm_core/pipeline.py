"""A bundle made ready to sample: from Python, from the command line and inside the server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ddpm_core.bundle import Bundle, read_bundle
from ddpm_core.denoiser import Denoiser, fastest_dtype, make_ready
from ddpm_core.errors import InvalidInput
from ddpm_core.faces import FaceFinder, Target, pool_for
from ddpm_core.faces.find import YUNET
from ddpm_core.gate import Judgement, denoising_errors, score
from ddpm_core.pixels import to_pixels, to_tensor
from ddpm_core.plan import Plan, make_plan
from ddpm_core.sampling import advance, advance_through_network, sample

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Pipeline:
    """A model in memory.

    Attributes:
        bundle: what the bundle says.
        denoiser: the network on its device.
        finder: the face finder of the bundle's domain.
        pool: decodes and aligns uploads, with copies of the finder.
    """

    def __init__(self, bundle: Bundle, denoiser: Denoiser, finder: FaceFinder) -> None:
        self.bundle = bundle
        self.denoiser = denoiser
        self.finder = finder
        self.pool = pool_for(finder.domain, finder.yunet)

    def aim(self, image: bytes, *, align_to: str = "auto", face: int | None = None) -> Target:
        """Decode an upload and align it to the model's size; `align_to` and `face` as in the request.

        Raises:
            InvalidInput: not an image, one that costs too much, or a box or face that does not exist.
        """
        return self.pool.aim(image, self.bundle.manifest.image_size, align=align_to, face=face).result()

    def judge(self, target: Target) -> Judgement:
        """Say how strange a target is to the model, in one network call; only a bundle with statistics can score."""
        gate = self.bundle.manifest.statistics.gate
        if gate is None:
            return Judgement(has_face=target.has_face)
        image = to_tensor(target.pixels, self.bundle.manifest.channels)[None]
        return Judgement(float(score(gate, *denoising_errors(self.denoiser, image))), target.has_face)

    def sample(
        self,
        num_images: int = 1,
        *,
        image: bytes | None = None,
        on_step: Callable[[], object] | None = None,
        **how: Any,
    ) -> list[Image.Image]:
        """Make images; with a selfie, faces that resemble it.

        Args:
            num_images: 1..16.
            image: the bytes of a selfie; unguided without.
            on_step: called after each network call of the batch.
            how: what `make_plan` takes: `mode`, `resemblance`, `sampler`, `num_inference_steps`, `eta`, `seed` …

        Returns:
            RGB pictures at the model's size, the one of seed `seed` first.
        """
        if image is None:
            return self.run(make_plan(self.bundle, num_images=num_images, **how), on_step)
        target = self.aim(image)
        plan = make_plan(self.bundle, target.pixels, num_images=num_images, judgement=self.judge(target), **how)
        return self.run(plan, on_step)

    def run(
        self, plan: Plan, on_step: Callable[[], object] | None = None, *, through_network: bool = False
    ) -> list[Image.Image]:
        """Carry a plan out: the served step, repeated.

        Args:
            plan: what to do.
            on_step: called after each network call of the batch.
            through_network: take the gradient of mode `pixel` through the network: slow.
        """
        tick = advance_through_network if through_network else advance
        told = None if on_step is None else lambda _: on_step()
        images = sample(self.denoiser, plan.start(), on_step=told, tick=tick)
        return [Image.fromarray(to_pixels(image)) for image in images]


def load(
    path: Path | str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    face_detector: Path | None = None,
    run_code: bool = False,
) -> Pipeline:
    """Load a bundle.

    Args:
        path: its folder.
        device: `cuda` where there is one, else `cpu`, unless said.
        dtype: `float32`, `bfloat16` or `float16`; the fastest on this machine unless said, found by trying.
        face_detector: a YuNet ONNX file, which then finds human faces in place of OpenCV's cascades; unless said, the
            one that lies beside the models, such as models/face_detection_yunet_2023mar.onnx.
        run_code: run the code of a network that brings its own.

    Raises:
        InvalidInput: a bundle or a detector that is not usable, or a dtype that is not known.
    """
    bundle = read_bundle(path)
    if dtype is not None and dtype not in _DTYPES:
        allowed = ", ".join(_DTYPES)
        raise InvalidInput(
            "unknown_value", f"dtype must be one of: {allowed}.", field="dtype", given=dtype, allowed=allowed
        )
    finder = FaceFinder(bundle.manifest.domain, face_detector or _beside_models(bundle.path))
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    network = bundle.load_network(run_code=run_code)
    precision = _DTYPES[dtype] if dtype else fastest_dtype(network, torch.randn(2, *bundle.network_shape), where)
    guide = bundle.load_guide()
    denoiser = bundle.denoiser(
        make_ready(network, where, precision),
        where,
        precision,
        guide=None if guide is None else make_ready(guide, where, precision),
    )
    return Pipeline(bundle, denoiser, finder)


def _beside_models(bundle: Path) -> Path | None:
    """Give the newest YuNet file in the folder that models/NAME/VERSION lies in."""
    return max(bundle.absolute().parent.parent.glob(YUNET), default=None)
