"""A bundle made ready to sample: from Python, from the command line and inside the server."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ddpm_core.bundle import Bundle, read_bundle
from ddpm_core.denoiser import Denoiser, make_ready
from ddpm_core.dtypes import choose_dtype
from ddpm_core.errors import InvalidInput
from ddpm_core.faces import FaceFinder, MadeImage, Target, pool_for
from ddpm_core.faces.find import YUNET
from ddpm_core.gate import Judgement, denoising_errors, score
from ddpm_core.pixels import to_pixels, to_tensor
from ddpm_core.plan import Plan, make_plan
from ddpm_core.precision import Precision
from ddpm_core.sampling import MAX_SEED, SampleState, advance, advance_through_network, sample

ImageLike = bytes | bytearray | memoryview | str | Path | BinaryIO | Image.Image | NDArray[np.uint8]
"""A picture as it may be at hand: its bytes, its path, an open file, or pixels."""


@dataclass(frozen=True)
class Step:
    """How far a batch has come."""

    states: Sequence[SampleState] = field(repr=False)

    @property
    def number(self) -> int:
        """Network calls made for the first image."""
        return self.states[0].position

    @property
    def total(self) -> int:
        """Network calls that it takes."""
        return len(self.states[0].table)

    @property
    def previews(self) -> list[Image.Image]:
        """The clean images that the network foresees now; drawn when asked for."""
        return [MadeImage.of(to_pixels(s.x if s.x0_prev is None else s.x0_prev)) for s in self.states]


class Images(list[MadeImage]):
    """Made images in their order. `images` is the same list: so it is called in what a pipeline of diffusers gives."""

    @property
    def images(self) -> Self:
        """The images."""
        return self


class Pipeline:
    """A model in memory; a call makes images.

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

    def __repr__(self) -> str:
        manifest, denoiser = self.bundle.manifest, self.denoiser
        precision = str(denoiser.dtype).removeprefix("torch.")
        return f"<{manifest.name} {manifest.version}, {manifest.image_size} px, on {denoiser.device} in {precision}>"

    def aim(self, image: ImageLike, *, align: str | Sequence[float] = "auto", face: int | None = None) -> Target:
        """Decode a picture and align it to the model's size; `align` and `face` as in a call.

        Raises:
            InvalidInput: not an image, one that costs too much, or a box or face that does not exist.
        """
        size = self.bundle.manifest.image_size
        return self.pool.aim(_file_of(image), size, align=_align_of(align), face=face).result()

    def judge(self, target: Target) -> Judgement:
        """Say how strange a target is to the model, in one network call; only a bundle with statistics can score."""
        return self.judge_all([target], 1)[0]

    def judge_all(self, targets: Sequence[Target], rows: int) -> list[Judgement]:
        """Judge several, `rows` in one network call."""
        gate = self.bundle.manifest.statistics.gate
        if gate is None:
            return [Judgement(has_face=target.has_face) for target in targets]
        images = torch.stack([to_tensor(target.pixels, self.bundle.manifest.channels) for target in targets])
        scores = score(gate, *denoising_errors(self.denoiser, images, rows=rows)).tolist()
        return [Judgement(each, target.has_face) for each, target in zip(scores, targets, strict=True)]

    def __call__(
        self,
        num_images: int | None = None,
        *,
        image: ImageLike | None = None,
        align: str | Sequence[float] = "auto",
        face: int | None = None,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        num_images_per_prompt: int | None = None,
        on_step: Callable[[Step], object] | None = None,
        **how: Any,
    ) -> Images:
        """Make images; with a selfie, faces that resemble it. What was decided for the user is a warning.

        Args:
            num_images: 1..16; 1 unless said.
            image: a selfie: a path, bytes, an open file, a PIL picture or an (H, W, 3) uint8 array; unguided without.
            align: `auto`, `center`, `none`, or a box (left, top, right, bottom) in pixels of the upright picture.
            face: which of the faces found; the largest unless said.
            seed: of the first image, those after it have the next ones; a random one unless said.
            generator: gives the seed in its place, as in diffusers; one for all images.
            num_images_per_prompt: `num_images`, by its name in diffusers.
            on_step: called after each network call of the batch.
            how: what `make_plan` takes: `mode`, `resemblance`, `sampler`, `num_inference_steps`, `eta`, `guide` …

        Returns:
            RGB pictures at the model's size, the one of seed `seed` first. Their files carry their settings.

        Raises:
            InvalidInput: a value outside its range, values that contradict each other, or no picture.
            OSError: the picture's file cannot be read.
        """
        count = _one_of("num_images", num_images, num_images_per_prompt)
        if isinstance(generator, list | tuple):
            message = "One generator gives the first image's seed, and those after it have the next ones."
            raise InvalidInput("wrong_type", message, field="generator", given=len(generator), allowed="one generator")
        drawn = None if generator is None else generator.initial_seed() % (MAX_SEED + 1)
        first = _one_of("seed", seed, drawn)
        how |= {"num_images": 1 if count is None else count, "seed": -1 if first is None else first}
        if image is None:
            return self.run(make_plan(self.bundle, **how), on_step)
        target = self.aim(image, align=align, face=face)
        plan = make_plan(self.bundle, target.pixels, judgement=self.judge(target), **how)
        for _, message in (*target.warnings, *plan.warnings):
            warnings.warn(message, stacklevel=2)
        used = {"align": _align_of(align)} | ({} if target.face is None else {"face": target.face})
        return self.run(replace(plan, parameters=plan.parameters | used), on_step)

    sample = __call__
    """The name that it had first."""

    def run(
        self, plan: Plan, on_step: Callable[[Step], object] | None = None, *, through_network: bool = False
    ) -> Images:
        """Carry a plan out: the served step, repeated.

        Args:
            plan: what to do.
            on_step: called after each network call of the batch.
            through_network: take the gradient of mode `pixel` through the network: slow.
        """
        tick = advance_through_network if through_network else advance
        told = None if on_step is None else lambda states: on_step(Step(states))
        images = sample(self.denoiser, plan.start(), on_step=told, tick=tick)
        manifest = self.bundle.manifest
        about = plan.parameters | {"num_images": 1, "model": manifest.name, "version": manifest.version}
        return Images(
            MadeImage.of(to_pixels(image), about | {"seed": seed})
            for image, seed in zip(images, plan.seeds, strict=True)
        )


def _one_of(field: str, value: int | None, alias: int | None) -> int | None:
    """Give what was said by either of a field's names."""
    if value is not None and alias is not None:
        raise InvalidInput("conflict", f"{field} is given twice.", field=field, given=value, allowed="one of the two")
    return alias if value is None else value


def _align_of(align: str | Sequence[float]) -> str:
    """Give the request's word for it."""
    return align if isinstance(align, str) else ",".join(map(str, align))


def _file_of(image: ImageLike) -> bytes:
    """Give the bytes of a picture, however it is at hand."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | Path):
        return Path(image).read_bytes()
    if isinstance(image, Image.Image | np.ndarray):
        file = io.BytesIO()
        # A phone's picture that Pillow has opened still lies on its side.
        (ImageOps.exif_transpose(image) if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, "PNG")
        return file.getvalue()
    return image.read()


def load(
    path: Path | str,
    *,
    device: str | None = None,
    dtype: str | torch.dtype = "auto",
    face_detector: Path | None = None,
    run_code: bool = False,
) -> Pipeline:
    """Load a bundle.

    Args:
        path: its folder.
        device: `cuda` where there is one, else `cpu`, unless said.
        dtype: `float32`, `bfloat16` or `float16`; `auto` is the fastest here that makes the same pictures
            (`ddpm_core.dtypes`).
        face_detector: a YuNet ONNX file, which then finds human faces in place of OpenCV's cascades; unless said, the
            one that lies beside the models, such as models/face_detection_yunet_2023mar.onnx.
        run_code: run the code of a network that brings its own.

    Raises:
        InvalidInput: a bundle or detector that is not usable, a dtype that is not known, a device that is not here.
    """
    bundle = read_bundle(path)
    precision = _precision(str(dtype).removeprefix("torch."))
    finder = FaceFinder(bundle.manifest.domain, face_detector or _beside_models(bundle.path))
    where = _device(device)
    network = bundle.load_network(run_code=run_code)
    guide = bundle.load_guide()
    format = choose_dtype(bundle, network, guide, where) if precision is Precision.AUTO else getattr(torch, precision)
    denoiser = bundle.denoiser(
        make_ready(network, where, format),
        where,
        format,
        guide=None if guide is None else make_ready(guide, where, format),
    )
    return Pipeline(bundle, denoiser, finder)


def _precision(name: str) -> Precision:
    try:
        return Precision(name)
    except ValueError:
        allowed = ", ".join(Precision)
        message = f"dtype must be one of: {allowed}."
        raise InvalidInput("unknown_value", message, field="dtype", given=name, allowed=allowed) from None


def _device(name: str | None) -> torch.device:
    """Give the device by its name, or the best there is; the first tensor on it tells whether it is here."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # what waits for "the" GPU waits for this one: timings, to begin with
    except (RuntimeError, AssertionError, NotImplementedError):
        here = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        allowed = ", ".join(here)
        message = f"There is no device {name} here; there is: {allowed}."
        raise InvalidInput("unknown_value", message, field="device", given=name, allowed=allowed) from None
    return device


def _beside_models(bundle: Path) -> Path | None:
    """Give the newest YuNet file in the folder that models/NAME/VERSION lies in."""
    return max(bundle.absolute().parent.parent.glob(YUNET), default=None)
