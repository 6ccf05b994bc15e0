"""A bundle read: what it says of itself, its network and its guide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ddpm_core import schedule
from ddpm_core.bundle.files import (
    COARSE_WEIGHTS,
    GUIDE_CONFIG,
    GUIDE_WEIGHTS,
    MANIFEST,
    SCHEDULER_CONFIG,
    UNET_CONFIG,
    WEIGHTS,
    broken,
    existing,
    read_json,
    sha256,
)
from ddpm_core.bundle.manifest import Manifest
from ddpm_core.bundle.networks import build_network, channels_of, fit_weights
from ddpm_core.denoiser import Denoiser, Prediction
from ddpm_core.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class Bundle:
    """What a bundle says of itself; its network is read by `load_network`.

    Attributes:
        path: the folder.
        manifest: `bundle.json`.
        schedule: the noise schedule of its scheduler config.
    """

    path: Path
    manifest: Manifest
    schedule: schedule.NoiseSchedule

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of its images."""
        return (self.manifest.channels, self.manifest.image_size, self.manifest.image_size)

    @property
    def network_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what its network sees: blocks of pixels are channels, and so are bands."""
        manifest = self.manifest
        smaller = manifest.patch * (1 if manifest.bands is None else 2)
        side = manifest.image_size // smaller
        return (manifest.channels * smaller**2, side, side)

    def load_network(self, *, run_code: bool = False) -> nn.Module:
        """Read the network in float32, with checksums, shapes and finite weights checked.

        Args:
            run_code: run the code of a network that brings its own. Whoever wrote it does then what this user may do.

        Raises:
            InvalidInput: a file that is missing or changed, keys that do not fit, weights that are not finite, or code
                of its own that is not to be run or has no checksum.
        """
        weights = self.read_weights()
        code = self.manifest.network
        if code is not None and not run_code:
            raise InvalidInput(
                "own_code",
                f"{self.path} brings its own code, {code.file}, which is run only if you say so: --run-code, or"
                " run_code=True in Python. Read it first.",
                field="run_code",
                allowed="true",
            )
        if code is not None and code.file not in self.manifest.checksums:
            raise broken(self.path, f"{MANIFEST} has no checksum of {code.file}, so that it is not run")
        network = build_network(
            read_json(self.path / UNET_CONFIG), None if code is None else (self.path / code.file, code.network)
        )
        fit_weights(network, weights, self.path)
        return network

    def read_weights(self) -> dict[str, torch.Tensor]:
        """Read the weights by their names and run nothing; all checksums are checked.

        Raises:
            InvalidInput: a file that is missing, changed or damaged.
        """
        for name, expected in self.manifest.checksums.items():
            actual = sha256(existing(self.path / name))
            if actual != expected:
                raise broken(self.path, f"{name} has changed: its SHA-256 is {actual}, bundle.json says {expected}")
        weights = _tensors(self.path / WEIGHTS)
        if COARSE_WEIGHTS in self.manifest.checksums:
            weights |= {f"coarse.{name}": weight for name, weight in _tensors(self.path / COARSE_WEIGHTS).items()}
        return weights

    def load_guide(self) -> nn.Module | None:
        """Read the guide's network in float32, or give None where there is none; `load_network` checks its sums.

        Raises:
            InvalidInput: as for `load_network`, or a guide that does not fit the network.
        """
        if self.manifest.guide is None:
            return None
        self._guide_kind()
        network = build_network(read_json(self.path / GUIDE_CONFIG))
        fit_weights(network, _tensors(self.path / GUIDE_WEIGHTS), self.path / "guide")
        return network

    def denoiser(
        self, network: nn.Module, device: torch.device, dtype: torch.dtype, guide: nn.Module | None = None
    ) -> Denoiser:
        """Give what predicts clean images by its network and its guide, both made ready on `device` in `dtype`."""
        manifest = self.manifest
        return Denoiser(
            network,
            self.schedule,
            manifest.prediction_type,
            patch=manifest.patch,
            device=device,
            dtype=dtype,
            guide=None if guide is None else self._guide_kind().denoiser(guide, device, dtype),
            bands=manifest.bands,
        )

    @property
    def coarse(self) -> Bundle:
        """What a model of the coarse band alone is, of a model with bands: half the side, and no bands."""
        manifest = self.manifest.model_copy(update={"image_size": self.manifest.image_size // 2, "bands": None})
        return Bundle(self.path, manifest, schedule.halved(self.schedule))

    def _guide_kind(self) -> Bundle:
        """Give what the guide is a network of: the same as the network, or with bands the coarse band alone."""
        given = channels_of(read_json(self.path / GUIDE_CONFIG))
        kinds = {kind.network_shape[0]: kind for kind in ([self, self.coarse] if self.manifest.bands else [self])}
        if given not in kinds:
            wanted = " or ".join(str(channels) for channels in kinds)
            raise broken(self.path, f"its guide works on {given} channels, and it takes one of {wanted}")
        return kinds[given]


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a file by their names; refuse the bundle where it is damaged."""
    try:
        tensors: dict[str, torch.Tensor] = load_file(existing(file))
    except SafetensorError as error:
        raise broken(file.parent, f"{file.name} is damaged: {error}") from None
    return tensors


def read_bundle(path: Path | str) -> Bundle:
    """Read the small files of a bundle.

    Raises:
        InvalidInput: a file that is missing, does not parse, or says something that is not supported; with its name.
    """
    path = Path(path)
    try:
        manifest = Manifest.model_validate(read_json(path / MANIFEST))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise broken(path, f"{MANIFEST}: {where}: {first['msg']}") from None
    scheduler = read_json(path / SCHEDULER_CONFIG)
    declared = scheduler.get("prediction_type", Prediction.EPSILON)
    if declared != manifest.prediction_type:
        raise broken(
            path, f"{MANIFEST} says prediction_type {manifest.prediction_type}, {SCHEDULER_CONFIG} says {declared}"
        )
    return Bundle(path, manifest, schedule.from_diffusers(scheduler))
