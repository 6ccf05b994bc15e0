"""A training recipe: every setting of a run, as one checked value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from ddpm_core.denoiser import Prediction
from ddpm_core.errors import InvalidInput


class Schedule(StrEnum):
    """How ᾱ falls over the levels."""

    LINEAR = "linear"
    COSINE = "cosine"


class Loss(StrEnum):
    """How far a prediction is from its target."""

    MSE = "mse"
    L1 = "l1"
    HUBER = "huber"


class Decay(StrEnum):
    """How the learning rate falls over the last part of a run."""

    NONE = "none"
    LINEAR = "linear"
    COSINE = "cosine"


class Precision(StrEnum):
    """The arithmetic inside the network; `auto` takes bf16 where the hardware has it."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


@dataclass(frozen=True)
class Recipe:
    """Every setting of a training run. Counts of steps are optimizer steps.

    Attributes:
        name: what the trained model is called.
        domain: which alignment its faces have: human_face, cat_face or any.
        terms: what the data allows the weights to be used for; goes into the model card.
        data: folder, zip or list of images.
        person_pattern: regular expression on an image's path whose first group names the person; images of one
            person, and equal files, never lie on both sides of the validation split.
        classes: sub-folders to train on; empty for all.
        validation: share of the images held back.
        flip: mirror every other image.
        crop: smallest share of the side that a random crop keeps; 1 for no cropping.
        image_size: side of the square images, in pixels.
        channels: 3 for colour, 1 for grey.
        patch: side of the pixel blocks that the network sees as channels (pixel-unshuffle); 1 for none.
        network: `class` (UNet2DModel or AttentionUNet) and that class's own settings.
        init: folder of a bundle or checkpoint whose averaged weights the run begins with; empty for fresh ones.
        schedule, num_levels, prediction: the diffusion.
        loss, min_snr: distance, and γ of the Min-SNR weighting (0 for none; Hang et al. 2023).
        stratified: spread the timesteps of a batch evenly.
        batch: images in one optimizer step, over all processes.
        accumulate: parts that a batch is computed in, to save memory.
        steps: length of the run, which warm-up and decay refer to.
        learning_rate, betas, weight_decay, clip: AdamW, and the norm that gradients are clipped to (0 for none).
        warmup: steps of linear warm-up.
        decay, decay_share: how the learning rate falls to zero, over which last share of the run.
        ema_half_life: in images; 0 for no averaging.
        ema_ramp: the half-life is at most this share of the images seen so far.
        precision, compile: how the network is run.
        seed: 0 up to 2³² − 1; every random choice is a function of it and of the step.
        log_every, validate_every, sample_every, checkpoint_every: in steps; 0 for never (not for logs).
        checkpoint_minutes: also write a checkpoint this often; 0 for not.
        patience: stop after so many validations without a better loss; 0 for never.
        samples: images in a sample grid; `sample_every` = 0 for no grids.
    """

    name: str = "model"
    domain: str = "any"
    terms: str = ""
    data: str = ""
    person_pattern: str = ""
    classes: tuple[str, ...] = ()
    validation: float = 0.02
    flip: bool = True
    crop: float = 1.0
    image_size: int = 64
    channels: int = 3
    patch: int = 1
    network: Mapping[str, Any] = field(default_factory=lambda: {"class": "UNet2DModel"})
    init: str = ""
    schedule: Schedule = Schedule.COSINE
    num_levels: int = 1000
    prediction: Prediction = Prediction.V
    loss: Loss = Loss.MSE
    min_snr: float = 5.0
    stratified: bool = True
    batch: int = 64
    accumulate: int = 1
    steps: int = 100_000
    learning_rate: float = 4e-4
    betas: tuple[float, ...] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip: float = 1.0
    warmup: int = 200
    decay: Decay = Decay.COSINE
    decay_share: float = 0.4
    ema_half_life: float = 50_000.0
    ema_ramp: float = 0.05
    precision: Precision = Precision.AUTO
    compile: bool = False
    seed: int = 0
    log_every: int = 50
    validate_every: int = 1000
    sample_every: int = 5000
    checkpoint_every: int = 1000
    checkpoint_minutes: float = 5.0
    patience: int = 0
    samples: int = 16

    def __post_init__(self) -> None:
        for name in ("image_size", "patch", "num_levels", "batch", "accumulate", "steps", "log_every", "samples"):
            _require(self, name, getattr(self, name) >= 1, "at least 1")
        _require(self, "validation", 0 <= self.validation < 1, "0 up to, not including, 1")
        _require(self, "decay_share", 0 <= self.decay_share <= 1, "0..1")
        for name in ("learning_rate", "crop"):
            _require(self, name, 0 < getattr(self, name) <= 1, "above 0, at most 1")
        for name in (
            "min_snr",
            "weight_decay",
            "clip",
            "warmup",
            "ema_half_life",
            "checkpoint_minutes",
            "patience",
        ):
            _require(self, name, getattr(self, name) >= 0, "0 or more")
        _require(self, "seed", 0 <= self.seed < 2**32, "0..4294967295")
        _require(self, "image_size", self.image_size % self.patch == 0, f"a multiple of patch = {self.patch}")
        _require(self, "batch", self.batch % self.accumulate == 0, f"a multiple of accumulate = {self.accumulate}")
        _require(self, "betas", len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "two numbers in 0..1")
        _require(self, "domain", self.domain in ("human_face", "cat_face", "any"), "human_face, cat_face or any")
        _require(self, "channels", self.channels in (1, 3), "1 or 3")
        _require(self, "network", "class" in self.network, "a mapping with the key class")

    def to_dict(self) -> dict[str, Any]:
        """Give the settings as plain numbers, words and lists."""
        plain = {key: value.value if isinstance(value, StrEnum) else value for key, value in asdict(self).items()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


def read(file: Path | None = None, overrides: Iterable[str] = (), **fixed: Any) -> Recipe:
    """Read a recipe file, then apply `key=value` overrides.

    Args:
        file: YAML; None for the defaults.
        overrides: such as ``batch=32`` or ``network.layers_per_block=2``; the value is read as YAML.
        fixed: settings that win over both.

    Raises:
        InvalidInput: an unknown key (the nearest known one is named), a wrong type or a value out of range.
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InvalidInput("bad_recipe", f"The recipe {file} cannot be read: {error}", field="recipe") from error
        if not isinstance(loaded, dict):
            raise InvalidInput("bad_recipe", f"The recipe {file} must be a mapping of settings.", field="recipe")
        values.update(loaded)
    return change(Recipe(), values, overrides, **fixed)


def change(recipe: Recipe, values: Mapping[str, Any], overrides: Iterable[str] = (), **fixed: Any) -> Recipe:
    """Give the recipe with some settings changed; arguments and errors as for `read`."""
    hints = get_type_hints(Recipe)
    known = [entry.name for entry in fields(Recipe)]
    merged = dict(values)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise InvalidInput("bad_setting", f"--set wants key=value, not {override!r}.", field="set", given=override)
        head, _, rest = key.strip().partition(".")
        value = _value(override, text)
        if head == "network" and rest:
            merged["network"] = {**recipe.network, **merged.get("network", {}), rest: value}
        else:
            merged[key.strip()] = value
    merged.update(fixed)
    for key in merged:
        if key not in known:
            raise unknown("recipe setting", key, known)
    return replace(recipe, **{key: _coerce(key, value, hints[key]) for key, value in merged.items()})


def _value(override: str, text: str) -> Any:
    """Read the value of an override; nothing behind the = is the empty text, not YAML's null."""
    try:
        return yaml.safe_load(text) if text.strip() else ""
    except yaml.YAMLError as error:
        raise InvalidInput(
            "bad_setting", f"--set {override!r} is not YAML: {error}", field="set", given=override
        ) from error


def unknown(what: str, given: str, known: Sequence[str]) -> InvalidInput:
    """Make the error for a name that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(str(given), known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    words = ", ".join(sorted(known))
    return InvalidInput(
        "unknown_name",
        f"There is no {what} {given}.{hint} Known: {words}.",
        field=str(given),
        given=given,
        allowed=words,
    )


def _coerce(key: str, value: Any, kind: Any) -> Any:
    """Give the value as the field's type, or say what type it must have."""
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        try:
            return kind(value)
        except ValueError:
            raise unknown(f"{key} called", value, [member.value for member in kind]) from None
    if kind is float and isinstance(value, str | int) and not isinstance(value, bool):
        try:  # YAML 1.1 reads 1e-4 as a word
            return float(value)
        except ValueError:
            raise _wrong_type(key, value, "a number") from None
    if str(kind).startswith("tuple") and isinstance(value, list | tuple):
        part = float if "float" in str(kind) else str
        return tuple(_coerce(key, item, part) for item in value)
    if kind in (bool, int, float, str):
        if type(value) is not kind:
            words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
            raise _wrong_type(key, value, words[kind])
        return value
    if isinstance(value, Mapping):
        return dict(value)
    raise _wrong_type(key, value, "a list" if str(kind).startswith("tuple") else "a mapping")


def _wrong_type(key: str, value: Any, allowed: str) -> InvalidInput:
    return InvalidInput(
        "wrong_type", f"{key} must be {allowed}, not {value!r}.", field=key, given=value, allowed=allowed
    )


def _require(recipe: Recipe, name: str, holds: bool, allowed: str) -> None:
    if not holds:
        given = getattr(recipe, name)
        raise InvalidInput(
            "out_of_range", f"{name} must be {allowed}, not {given!r}.", field=name, given=given, allowed=allowed
        )
