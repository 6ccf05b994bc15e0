"""A trained model on disk: the diffusers layout with a `bundle.json` that says all that serving needs to know.

faces-64/1.1/
  model_index.json  unet/{config.json, *.safetensors}  scheduler/scheduler_config.json
  bundle.json  README.md
  guide/{config.json, *.safetensors}   where it has a worse network to be guided by
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from safetensors.torch import load_file, save_file
from torch import nn

from ddpm_core import schedule
from ddpm_core.bands import Bands
from ddpm_core.denoiser import Denoiser, Prediction
from ddpm_core.domain import Domain
from ddpm_core.errors import InvalidInput
from ddpm_core.whole import write_whole

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
UNET_CONFIG = "unet/config.json"
SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
GUIDE_WEIGHTS = "guide/diffusion_pytorch_model.safetensors"
GUIDE_CONFIG = "guide/config.json"
MODEL_INDEX = "model_index.json"
MANIFEST = "bundle.json"


class NetworkCode(BaseModel):
    """A network that comes with its own code: the file in the bundle and the class in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str = Field(pattern=r"^\w+\.py$")
    network: str = Field(pattern=r"^[A-Za-z_]\w*$")


class SamplingDefaults(BaseModel):
    """What sampling takes where a request does not say."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    num_inference_steps: int = Field(default=25, ge=1)


class Gate(BaseModel):
    """What `ddpm_core.gate` takes for usual: a line, and how far usual pictures scatter about it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    slope: float
    offset: float
    spread: float = Field(gt=0)
    images: int = Field(ge=2)
    source: str


class Tone(BaseModel):
    """Mean and standard deviation of each channel in usual pictures without detail, in [−1, 1]."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Statistics(BaseModel):
    """What is usual for a model, as `ddpm evaluate gate` found; empty where nobody has looked yet."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    gate: Gate | None = None
    tone: Tone | None = None


class Guide(BaseModel):
    """How far the bundle's guide pushes, and where: w, and the lowest and highest σ at a 256 px side."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    weight: float = Field(ge=1, le=3)
    interval: tuple[Annotated[float, Field(ge=0)], float]

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if not self.interval[0] < self.interval[1]:
            raise ValueError(f"interval {list(self.interval)} must rise from its lowest to its highest σ")
        return self


class Manifest(BaseModel):
    """The contents of `bundle.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    version: str = Field(pattern=r"^[0-9]+(\.[0-9]+)*$")
    domain: Domain
    image_size: int = Field(ge=8, le=2048)
    channels: Literal[1, 3] = 3
    patch: Literal[1, 2, 4] = 1
    prediction_type: Prediction
    bands: Bands | None = None
    weights: Literal["ema", "raw"] = "ema"
    defaults: SamplingDefaults = SamplingDefaults()
    network: NetworkCode | None = None
    guide: Guide | None = None
    statistics: Statistics = Statistics()
    provenance: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    checksums: dict[str, str] = {}

    @field_validator("bands")
    @classmethod
    def _fit(cls, bands: Bands | None, info: ValidationInfo) -> Bands | None:
        size, least = info.data.get("image_size", 0), 2 * info.data.get("patch", 1)
        prediction = info.data.get("prediction_type", Prediction.V)
        if bands is not None and size % least:
            raise ValueError(f"they need an image_size that is a multiple of {least}, not {size}")
        if bands is not None and prediction is not Prediction.V:
            raise ValueError(f"they need prediction_type {Prediction.V}, not {prediction}")
        return bands


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
            raise _broken(self.path, f"{MANIFEST} has no checksum of {code.file}, so that it is not run")
        network = build_network(
            _json(self.path / UNET_CONFIG), None if code is None else (self.path / code.file, code.network)
        )
        fit_weights(network, weights, self.path)
        return network

    def read_weights(self) -> dict[str, torch.Tensor]:
        """Read the weights by their names and run nothing; all checksums are checked.

        Raises:
            InvalidInput: a file that is missing, changed or damaged.
        """
        for name, expected in self.manifest.checksums.items():
            actual = sha256(_existing(self.path / name))
            if actual != expected:
                raise _broken(self.path, f"{name} has changed: its SHA-256 is {actual}, bundle.json says {expected}")
        weights: dict[str, torch.Tensor] = load_file(_existing(self.path / WEIGHTS))
        return weights

    def load_guide(self) -> nn.Module | None:
        """Read the guide's network in float32, or give None where there is none; `load_network` checks its sums.

        Raises:
            InvalidInput: as for `load_network`, or a guide that does not fit the network.
        """
        if self.manifest.guide is None:
            return None
        self._guide_kind()
        network = build_network(_json(self.path / GUIDE_CONFIG))
        fit_weights(network, load_file(_existing(self.path / GUIDE_WEIGHTS)), self.path / "guide")
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
        given = _channels(_json(self.path / GUIDE_CONFIG))
        kinds = {kind.network_shape[0]: kind for kind in ([self, self.coarse] if self.manifest.bands else [self])}
        if given not in kinds:
            wanted = " or ".join(str(channels) for channels in kinds)
            raise _broken(self.path, f"its guide works on {given} channels, and it takes one of {wanted}")
        return kinds[given]


def read_bundle(path: Path | str) -> Bundle:
    """Read the small files of a bundle.

    Raises:
        InvalidInput: a file that is missing, does not parse, or says something that is not supported; with its name.
    """
    path = Path(path)
    try:
        manifest = Manifest.model_validate(_json(path / MANIFEST))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _broken(path, f"{MANIFEST}: {where}: {first['msg']}") from None
    scheduler = _json(path / SCHEDULER_CONFIG)
    declared = scheduler.get("prediction_type", Prediction.EPSILON)
    if declared != manifest.prediction_type:
        raise _broken(
            path, f"{MANIFEST} says prediction_type {manifest.prediction_type}, {SCHEDULER_CONFIG} says {declared}"
        )
    return Bundle(path, manifest, schedule.from_diffusers(scheduler))


def write_bundle(
    path: Path,
    network: nn.Module,
    scheduler_config: Mapping[str, Any],
    manifest: Manifest,
    readme: str,
    settings: Mapping[str, Any] | None = None,
) -> Bundle:
    """Write a bundle that diffusers can read too (where `patch` is 1, without bands), 16-bit weights kept as they are.

    Args:
        path: the folder; made, files in it replaced.
        network: a diffusers model, a module with a `config` mapping that holds `_class_name` and its settings, or any
            other with `settings`.
        scheduler_config: the schedule's settings in diffusers' words.
        manifest: without checksums; they are computed here.
        readme: the model card.
        settings: what the network is made with, where it does not say so itself.
    """
    config: Any = network.config if settings is None else settings
    unet = {key: value for key, value in dict(config).items() if key != "_name_or_path"}
    unet.setdefault("_class_name", type(network).__name__)
    scheduler = {
        "_class_name": "DDPMScheduler",
        "prediction_type": str(manifest.prediction_type),
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "variance_type": "fixed_small",
        **{key: value for key, value in scheduler_config.items() if value is not None},
    }
    index = {
        "_class_name": "DDPMPipeline",
        "unet": ["diffusers", unet["_class_name"]],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    for name, value in ((UNET_CONFIG, unet), (SCHEDULER_CONFIG, scheduler), (MODEL_INDEX, index)):
        _write_json(path / name, value)
    # Copied: weights that a network uses twice are two names of one memory, and the format does not know that.
    weights = {key: value.clone(memory_format=torch.contiguous_format) for key, value in network.state_dict().items()}
    save_file(weights, path / WEIGHTS)
    files = [UNET_CONFIG, SCHEDULER_CONFIG, WEIGHTS] + ([manifest.network.file] if manifest.network else [])
    manifest = manifest.model_copy(update={"checksums": {name: sha256(path / name) for name in files}})
    _write_json(path / MANIFEST, manifest.model_dump(mode="json", exclude_none=True))
    write_whole(path / "README.md", readme)
    return read_bundle(path)


def add_guide(path: Path, source: Path, guide: Guide) -> Bundle:
    """Give a bundle the network of another one as its guide, in 16 bit.

    Args:
        path: the bundle; its `bundle.json` is written again.
        source: a worse model of the same kind: an earlier checkpoint of the same run, or a smaller network; with bands
            also one of the coarse band alone.
        guide: how far it pushes, and where.

    Raises:
        InvalidInput: a model of another kind, by what sets it apart; or a bundle that is not usable.
    """
    bundle, worse = read_bundle(path), read_bundle(source)
    kind = bundle.coarse if bundle.manifest.bands and not worse.manifest.bands else bundle
    for name in ("image_size", "channels", "patch", "prediction_type", "bands"):
        ours, theirs = getattr(kind.manifest, name), getattr(worse.manifest, name)
        if ours != theirs:
            raise _no_guide(source, f"its {name} is {theirs}", f"{name} {ours}")
    if worse.manifest.network is not None:
        raise _no_guide(source, "it brings its own code", "UNet2DModel or AttentionUNet")
    ours, theirs = kind.schedule.alpha_bar, worse.schedule.alpha_bar
    if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=1e-6, atol=0):
        raise _no_guide(source, "its noise schedule is another", f"the schedule of {path}")
    _write_json(path / GUIDE_CONFIG, _json(source / UNET_CONFIG))
    save_file(worse.load_network().half().state_dict(), path / GUIDE_WEIGHTS)
    sums = {name: sha256(path / name) for name in (GUIDE_CONFIG, GUIDE_WEIGHTS)}
    manifest = bundle.manifest.model_copy(update={"guide": guide, "checksums": {**bundle.manifest.checksums, **sums}})
    _write_json(path / MANIFEST, manifest.model_dump(mode="json", exclude_none=True))
    return read_bundle(path)


def keep_statistics(path: Path, statistics: Statistics) -> None:
    """Write statistics into a bundle's `bundle.json`; all else in it stays."""
    manifest = read_bundle(path).manifest.model_copy(update={"statistics": statistics})
    _write_json(path / MANIFEST, manifest.model_dump(mode="json", exclude_none=True))


def build_network(config: Mapping[str, Any], code: tuple[Path, str] | None = None) -> nn.Module:
    """Make a network with fresh weights from its `unet/config.json`.

    Args:
        config: settings with `_class_name`.
        code: file and class of a network that brings its own code.
    """
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    if code is not None:
        return _class_of(*code)(**settings)
    match config.get("_class_name"):
        case "UNet2DModel":
            from diffusers import UNet2DModel

            network: nn.Module = UNet2DModel.from_config(config)
            return network
        case "AttentionUNet":
            from ddpm_core.unet import AttentionUNet

            return AttentionUNet(**settings)
        case other:
            raise InvalidInput(
                "unknown_network",
                f"The network class {other} is not known; use UNet2DModel or AttentionUNet, or bring its code.",
                field="_class_name",
                given=other,
                allowed="UNet2DModel, AttentionUNet",
            )


def fit_weights(network: nn.Module, weights: Mapping[str, torch.Tensor], source: Path) -> None:
    """Load all of `weights` into `network`, or nothing: keys, shapes and finiteness are checked first.

    Raises:
        InvalidInput: listing missing and unexpected keys and wrong shapes.
    """
    wanted = network.state_dict()
    wrong = {
        "missing keys": sorted(wanted.keys() - weights.keys()),
        "unexpected keys": sorted(weights.keys() - wanted.keys()),
        "wrong shapes": [
            f"{key} {tuple(weights[key].shape)} instead of {tuple(wanted[key].shape)}"
            for key in sorted(wanted.keys() & weights.keys())
            if weights[key].shape != wanted[key].shape
        ],
        "weights that are not finite": sorted(key for key, value in weights.items() if not value.isfinite().all()),
    }
    if any(wrong.values()):
        parts = (
            f"{len(keys)} {what}: {', '.join(keys[:8])}{' …' if len(keys) > 8 else ''}"
            for what, keys in wrong.items()
            if keys
        )
        raise _broken(source, "; ".join(parts))
    network.load_state_dict(dict(weights))


def sha256(path: Path) -> str:
    """Give the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _class_of(file: Path, name: str) -> type[nn.Module]:
    module = ModuleType(f"bundled_network_{file.stem}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # dataclasses and pickling look their module up
    # Not imported: beside the file may lie bytecode of something else.
    exec(compile(_existing(file).read_bytes(), file, "exec"), module.__dict__)
    return getattr(module, name)  # type: ignore[no-any-return]


def _channels(config: Mapping[str, Any]) -> Any:
    """Give the channels that a network of this config works on: the two classes name them differently."""
    return config.get("in_channels", config.get("channels", 3))


def _no_guide(source: Path, why: str, allowed: str) -> InvalidInput:
    message = f"{source} cannot guide this model: {why}; it takes {allowed}."
    return InvalidInput("bad_guide", message, field="guide", given=str(source), allowed=allowed)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise _broken(path.parent, f"{path.name} is missing")
    return path


def _json(path: Path) -> dict[str, Any]:
    file = _existing(path)
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _broken(path.parent, f"{path.name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _broken(path.parent, f"{path.name} must hold a JSON object")
    return value


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _broken(path: Path, why: str) -> InvalidInput:
    return InvalidInput("broken_bundle", f"{path} is not a usable bundle: {why}.", field="bundle", given=str(path))
