"""A training recipe: every setting of a run, as one checked value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from enum import EnumType, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from ddpm_core.denoiser import Prediction
from ddpm_core.domain import Domain
from ddpm_core.errors import InvalidInput
from ddpm_core.precision import Precision
from ddpm_core.sampling import Sampler


class Schedule(StrEnum):
    """How ᾱ falls over the levels."""

    LINEAR = "linear"
    COSINE = "cosine"


class Loss(StrEnum):
    """How far a prediction is from its target."""

    MSE = "mse"
    L1 = "l1"
    HUBER = "huber"


class OptimizerName(StrEnum):
    """How weights follow their gradients."""

    ADAMW = "adamw"
    MUON = "muon"


class Decay(StrEnum):
    """How the learning rate falls over the last part of a run."""

    NONE = "none"
    LINEAR = "linear"
    COSINE = "cosine"


# What a value may be stands in its description, in the words of an error.
Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict(), BeforeValidator(lambda value: float(value) if isinstance(value, str) else value)]
"""YAML 1.1 reads 1e-4 as a word."""
Count = Annotated[Whole, Field(ge=1, description="at least 1")]
Times = Annotated[Whole, Field(ge=0, description="0 or more")]
Amount = Annotated[Number, Field(ge=0, description="0 or more")]
Share = Annotated[Number, Field(ge=0, le=1, description="0..1")]
Part = Annotated[Number, Field(gt=0, le=1, description="above 0, at most 1")]
HeldBack = Annotated[Number, Field(ge=0, lt=1, description="0 up to, not including, 1")]
Sigma = Annotated[Number, Field(gt=0)]
Beta = Annotated[Number, Field(ge=0, lt=1)]
_KINDS = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "value_error": "a number",
    "string_type": "a text",
    "tuple_type": "a list",
    "dict_type": "a mapping",
}


class Recipe(BaseModel):
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
        bands: 1 to split pictures into a coarse one of half the side and its detail, each learnt at its own spread
            (`ddpm_core.bands`); the schedule is then that of the coarse one. 0 for none.
        network: `class` (UNet2DModel, AttentionUNet, or with bands CascadedUNet) and that class's own settings.
        init: folder of a bundle or checkpoint whose averaged weights the run begins with; empty for fresh ones.
        teacher: folder of a bundle of the same pictures and schedule; what it predicts, pushed by its guide, is learnt
            in place of the clean image; empty for none. Begin with its weights (`init`): the student needs no guide.
        fine_teacher: folder of another such bundle, which teaches in its place where there is little noise; empty for
            none.
        teacher_sigma: with both, up to which σ at a 256 px side the fine one teaches alone, and from which the other
            one; between them a mix of both, by ln σ.
        teacher_guide: how far a teacher's guide pushes, 1..3; 0 for the bundle's own weight.
        averages: with one teacher, whether the means of its answers over noise are learnt as well, which `lcm` takes in
            little noise (`ddpm_core.training.averages`): one call then does for a pair. Every picture is asked seven
            times, so let `batch` be small.
        critic: folder of a finished bundle of the same pictures, whose features judge what is made; with it a network
            learns to make whole pictures in few calls (`ddpm_core.training.realism`). Begin with a finished network.
        perceptual, adversarial: with a critic, the weights of the distance in its features and of its word.
        rollout: with a critic, the share of a batch that begins with what the network itself predicts.
        schedule, num_levels, prediction: the diffusion.
        num_inference_steps: network calls from noise alone that the bundle asks for; guided modes take fewer in
            proportion.
        sampler: the way from noise to picture that the bundle asks for: ddpm; lcm where a critic has taught the network
            to make a finished picture in one call.
        loss, min_snr: distance, and γ of the Min-SNR weighting (0 for none; Hang et al. 2023).
        stratified: spread the timesteps of a batch evenly.
        focus, focus_sigma: share of the timesteps that lie evenly in ln σ between two σ at a 256 px side, such as 0.6
            and [0.04, 2] for fine detail; the others lie evenly over all levels.
        emphasis: how much more eyes and mouth weigh in the loss than the rest of a human face; 1 for not.
        detail: with bands, the weight of detail's loss beside the coarse band's.
        batch: images in one optimizer step, over all processes.
        accumulate: parts that a batch is computed in, to save memory.
        steps: length of the run, which warm-up and decay refer to.
        optimizer: adamw, or muon, which disturbs finished weights less (`ddpm_core.training.optimizer`).
        learning_rate, betas, weight_decay, clip: the optimizer's, and the norm that gradients are clipped to (0 for
            none).
        warmup: steps of linear warm-up.
        decay, decay_share: how the learning rate falls to zero, over which last share of the run.
        ema_half_life: in images; 0 for no averaging.
        ema_ramp: the half-life is at most this share of the images seen so far.
        precision: of the arithmetic inside the network; `auto` is bfloat16 where the hardware has it.
        compile: translate the network for this machine before the first step.
        seed: 0 up to 2³² − 1; every random choice is a function of it and of the step.
        log_every, validate_every, sample_every, checkpoint_every: in steps; 0 for never (not for logs).
        checkpoint_minutes: also write a checkpoint this often; 0 for not.
        patience: stop after so many validations without a better loss; 0 for never.
        samples: images in a sample grid; `sample_every` = 0 for no grids.
        guide_at: share of the run after which its averaged weights are kept as a guide for autoguidance; 0 for none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Text = "model"
    domain: Annotated[Domain, Field(description="human_face, cat_face or any")] = Domain.ANY
    terms: Text = ""
    data: Text = ""
    person_pattern: Text = ""
    classes: tuple[Text, ...] = ()
    validation: HeldBack = 0.02
    flip: Flag = True
    crop: Part = 1.0
    image_size: Count = 64
    channels: Annotated[Literal[1, 3], Field(description="1 or 3")] = 3
    patch: Count = 1
    bands: Annotated[Literal[0, 1], Field(description="0 or 1")] = 0
    network: dict[str, Any] = {"class": "UNet2DModel"}
    init: Text = ""
    teacher: Text = ""
    fine_teacher: Text = ""
    teacher_sigma: Annotated[tuple[Sigma, Sigma], Field(description="two numbers above 0 that rise")] = (1.0, 8.0)
    teacher_guide: Annotated[Number, Field(description="1..3, or 0 for the teacher's own")] = 0.0
    averages: Flag = False
    critic: Text = ""
    perceptual: Amount = 0.1
    adversarial: Amount = 0.005
    rollout: Share = 0.6
    schedule: Schedule = Schedule.COSINE
    num_levels: Count = 1000
    prediction: Prediction = Prediction.V
    num_inference_steps: Count = 25
    sampler: Sampler = Sampler.DDPM
    loss: Loss = Loss.MSE
    min_snr: Amount = 5.0
    stratified: Flag = True
    focus: Share = 0.0
    focus_sigma: Annotated[tuple[Sigma, Sigma], Field(description="two numbers above 0 that rise")] = (0.04, 2.0)
    emphasis: Annotated[Number, Field(ge=1, description="at least 1")] = 1.0
    detail: Amount = 0.2
    batch: Count = 64
    accumulate: Count = 1
    steps: Count = 100_000
    optimizer: OptimizerName = OptimizerName.ADAMW
    learning_rate: Part = 4e-4
    betas: Annotated[tuple[Beta, Beta], Field(description="two numbers in 0..1")] = (0.9, 0.99)
    weight_decay: Amount = 0.0
    clip: Amount = 1.0
    warmup: Times = 200
    decay: Decay = Decay.COSINE
    decay_share: Share = 0.4
    ema_half_life: Amount = 50_000.0
    ema_ramp: Number = 0.05
    precision: Precision = Precision.AUTO
    compile: Flag = False
    seed: Annotated[Whole, Field(ge=0, lt=2**32, description="0..4294967295")] = 0
    log_every: Count = 50
    validate_every: Whole = 1000
    sample_every: Whole = 5000
    checkpoint_every: Whole = 1000
    checkpoint_minutes: Amount = 5.0
    patience: Times = 0
    samples: Count = 16
    guide_at: Share = 0.0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.image_size % self.patch:
            raise _out_of_range("image_size", self.image_size, f"a multiple of patch = {self.patch}")
        if self.bands and self.image_size % (2 * self.patch):
            raise _out_of_range("image_size", self.image_size, f"a multiple of 2 · patch = {2 * self.patch} with bands")
        if self.bands and self.prediction is not Prediction.V:
            raise _out_of_range("prediction", str(self.prediction), f"{Prediction.V} with bands")
        for key in ("focus_sigma", "teacher_sigma"):
            low, high = getattr(self, key)
            if not low < high:
                raise _out_of_range(key, [low, high], "two numbers above 0 that rise")
        if self.fine_teacher and not self.teacher:
            raise _out_of_range("fine_teacher", self.fine_teacher, "empty without a teacher")
        if self.teacher_guide and not 1 <= self.teacher_guide <= 3:
            raise _out_of_range("teacher_guide", self.teacher_guide, "1..3, or 0 for the teacher's own")
        if self.teacher_guide and not self.teacher:
            raise _out_of_range("teacher_guide", self.teacher_guide, "0 without a teacher")
        if self.averages and (not self.teacher or self.fine_teacher):
            raise _out_of_range("averages", self.averages, "false but with a teacher and no fine_teacher")
        if self.critic and self.teacher:
            raise _out_of_range("critic", self.critic, "empty with a teacher")
        if self.critic and self.accumulate > 1:
            raise _out_of_range("accumulate", self.accumulate, "1 with a critic")
        if self.critic and self.patience:
            raise _out_of_range("patience", self.patience, "0 with a critic: its loss says little of the pictures")
        if self.batch % self.accumulate:
            raise _out_of_range("batch", self.batch, f"a multiple of accumulate = {self.accumulate}")
        if self.emphasis != 1 and self.domain is not Domain.HUMAN_FACE:
            raise _out_of_range("emphasis", self.emphasis, f"1 but for domain = {Domain.HUMAN_FACE}")
        if "class" not in self.network:
            raise _out_of_range("network", self.network, "a mapping with the key class")
        return self


def read(file: Path | None = None, overrides: Iterable[str] = (), **fixed: Any) -> Recipe:
    """Read a recipe file, then apply `key=value` overrides.

    Args:
        file: YAML; None for the defaults.
        overrides: such as `batch=32` or `network.layers_per_block=2`; the value is read as YAML.
        fixed: settings that win over both.

    Raises:
        InvalidInput: an unknown key (the nearest known one is named), a wrong type or a value out of range.
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            loaded = _from_yaml(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InvalidInput("bad_recipe", f"The recipe {file} cannot be read: {error}", field="recipe") from error
        if not isinstance(loaded, dict):
            raise InvalidInput("bad_recipe", f"The recipe {file} must be a mapping of settings.", field="recipe")
        values.update(loaded)
    return change(Recipe(), values, overrides, **fixed)


def change(recipe: Recipe, values: Mapping[str, Any], overrides: Iterable[str] = (), **fixed: Any) -> Recipe:
    """Give the recipe with some settings changed; arguments and errors as for `read`."""
    known = [*Recipe.model_fields]
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
    try:
        return Recipe.model_validate({**recipe.model_dump(), **merged})
    except ValidationError as error:
        raise _explained(error.errors()[0]) from None


class _Plain(yaml.SafeLoader):
    """YAML without references: a few lines of them stand for billions of values."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse a reference."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("references (*name) are not taken")
        return super().compose_node(parent, index)


def _from_yaml(text: str) -> Any:
    """Read YAML.

    Raises:
        YAMLError: it is none.
    """
    try:
        return yaml.load(text, _Plain)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deep") from None


def _value(override: str, text: str) -> Any:
    """Read the value of an override; nothing behind the = is the empty text, not YAML's null."""
    try:
        return _from_yaml(text) if text.strip() else ""
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


def _explained(problem: ErrorDetails) -> InvalidInput:
    """Say what pydantic found in the words of the setting."""
    own = problem.get("ctx", {}).get("error")
    if isinstance(own, InvalidInput):
        return own
    key, given = str(problem["loc"][0]), problem["input"]
    if problem["type"] in _KINDS:
        allowed = _KINDS[problem["type"]]
        return InvalidInput(
            "wrong_type", f"{key} must be {allowed}, not {given!r}.", field=key, given=given, allowed=allowed
        )
    setting = Recipe.model_fields[key]
    if setting.description is not None:
        return _out_of_range(key, given, setting.description)
    members = [member.value for member in setting.annotation] if isinstance(setting.annotation, EnumType) else []
    return unknown(f"{key} called", given, members)


def _out_of_range(name: str, given: Any, allowed: str) -> InvalidInput:
    return InvalidInput(
        "out_of_range", f"{name} must be {allowed}, not {given!r}.", field=name, given=given, allowed=allowed
    )
