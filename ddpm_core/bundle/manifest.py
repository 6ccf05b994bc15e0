"""What `bundle.json` says."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from ddpm_core.bands import Bands
from ddpm_core.denoiser import Prediction
from ddpm_core.domain import Domain
from ddpm_core.sampling import Sampler


class NetworkCode(BaseModel):
    """A network that comes with its own code: the file in the bundle and the class in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str = Field(pattern=r"^\w+\.py$")
    network: str = Field(pattern=r"^[A-Za-z_]\w*$")


class SamplingDefaults(BaseModel):
    """What sampling takes where a request does not say."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    num_inference_steps: int = Field(default=25, ge=1)
    sampler: Sampler = Sampler.DDPM


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


class Wholeness(BaseModel):
    """The direction in a model's features from broken faces to whole ones (`ddpm_core.wholeness`); by whose word."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    weights: tuple[float, ...]
    images: int = Field(ge=2)
    source: str


class Statistics(BaseModel):
    """What is usual for a model, as `ddpm evaluate gate` and `wholeness` found; empty where nobody has looked yet."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    gate: Gate | None = None
    tone: Tone | None = None
    wholeness: Wholeness | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_former_features(cls, data: Any) -> Any:
        """Pass over the weights of the features before these, `familiar`: a bundle that has them works without."""
        return {key: value for key, value in data.items() if key != "familiar"} if isinstance(data, dict) else data


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

    def strength(self, sigma: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
        """Give w − 1 for each σ at a 256 px side: nought outside the interval."""
        low, high = self.interval
        return np.where((low <= sigma) & (sigma <= high), weight - 1, 0.0)


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
    averages: bool = False
    """Whether the network has learnt what it answers on the mean over noise (`ddpm_core.training.averages`)."""
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
