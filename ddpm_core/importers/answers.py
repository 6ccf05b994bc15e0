"""What the one who imports says, and asking for what nobody has said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from ddpm_core import schedule as schedules
from ddpm_core.errors import InvalidInput
from ddpm_core.importers.found import Found
from ddpm_core.schedule import NoiseSchedule

_CONFIG_KEYS = ("network", "scheduler")
_LEVELS = "num_train_timesteps"
# Any of these by hand makes another schedule than the source's.
_CURVE = frozenset({"beta_schedule", "beta_start", "beta_end", "trained_betas"})


class Schedule(StrEnum):
    """The schedules that have a name: those of Ho et al. 2020 and Nichol & Dhariwal 2021, by default of 1000 levels."""

    LINEAR = "linear"
    COSINE = "cosine"


@dataclass(frozen=True)
class Answers:
    """What is said by hand about a source; it wins over what the source says. None where nothing is said.

    Attributes:
        name, version: of the bundle.
        domain: how selfies are aligned for it: `human_face`, `cat_face` or `any`.
        image_size: side of its images in pixels.
        prediction_type: in diffusers' words.
        schedule: by name; `scheduler` may say the rest, such as `num_train_timesteps`.
        network: settings of the network, in the words of `unet/config.json` or of the class that comes with its code.
        scheduler: settings of the schedule, in diffusers' words.
        code: the file and the class of a network that comes with its code.
        terms: under which the weights may be used.
        weights: which, where a source holds several: a file of a folder, or what stands before the names in it.
        sha256: of the file with the weights, in hexadecimal.
    """

    name: str
    version: str
    domain: str = "any"
    image_size: int | None = None
    prediction_type: str | None = None
    schedule: Schedule | None = None
    network: Mapping[str, Any] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    code: tuple[Path, str] | None = None
    terms: str | None = None
    weights: str | None = None
    sha256: str | None = None


def read_config(file: Path) -> dict[str, dict[str, Any]]:
    """Read a `--config` file: JSON with `network` and `scheduler`, both optional.

    Raises:
        InvalidInput: it is not that.
    """
    example = '{"network": {"norm_num_groups": 32}, "scheduler": {"beta_schedule": "linear"}}'
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInput("bad_config", f"{file} is not JSON: {error}.", field="config", given=str(file)) from None
    known = isinstance(config, dict) and all(
        key in _CONFIG_KEYS and isinstance(value, dict) for key, value in config.items()
    )
    if not known:
        raise InvalidInput(
            "bad_config",
            f"{file} must hold a JSON object with the objects {' and '.join(_CONFIG_KEYS)}, such as {example}.",
            field="config",
            given=str(file),
            allowed=", ".join(_CONFIG_KEYS),
        )
    # Files that `save_config` wrote have notes of diffusers' own among their settings.
    return {
        part: {key: value for key, value in settings.items() if not key.startswith("_") or key == "_class_name"}
        for part, settings in config.items()
    }


@dataclass(frozen=True)
class Settled:
    """The facts beside the network, from the source or by hand.

    Attributes:
        image_size, prediction_type, schedule: as in the bundle.
        by_hand: which settings of the scheduler were said by hand.
        note: how the schedule was found out in the source, or None.
    """

    image_size: int
    prediction_type: str
    schedule: NoiseSchedule
    by_hand: frozenset[str]
    note: str | None


def settle(found: Found, answers: Answers, network: Mapping[str, Any], open_settings: Mapping[str, str]) -> Settled:
    """Put together what the source and the answers say.

    Args:
        found: what the source says.
        answers: what is said by hand.
        network: what is known of the network's settings.
        open_settings: settings of the network that its weights do not determine → what is allowed, in words.

    Raises:
        InvalidInput: something is not said by either: each with the name of its option and what is allowed.
    """
    missing = {}
    for key, allowed in open_settings.items():
        if key not in network:
            missing[f'--config FILE with {{"network": {{"{key}": …}}}}'] = allowed
    size = answers.image_size or found.image_size
    if size is None:
        scales = len(network.get("block_out_channels") or network.get("widths") or [0])
        missing["--image-size"] = "8..2048" + (f", a multiple of {2 ** (scales - 1)}" if scales > 1 else "")
    said = _said(answers)
    scheduler = {**found.scheduler, **said}
    another = bool(said.keys() & _CURVE) or scheduler.get(_LEVELS) != found.scheduler.get(_LEVELS)
    if another and said.get("trained_betas") is None:
        scheduler.pop("trained_betas", None)  # the source's table would win over what was said
    if not {"beta_schedule", "trained_betas"} & scheduler.keys():
        missing["--schedule"] = "linear or cosine, or another with --config"
    prediction = answers.prediction_type or answers.scheduler.get("prediction_type") or found.prediction_type
    if prediction is None:
        missing["--prediction-type"] = "epsilon, v_prediction or sample"
    if missing:
        listed = "; ".join(f"{option} ({allowed})" for option, allowed in missing.items())
        raise InvalidInput(
            "answer_needed",
            f"{found.source} does not say all that is needed. Please add: {listed}.",
            field=next(iter(missing)),
            allowed=listed,
        )
    assert size is not None
    assert prediction is not None
    scheduler["prediction_type"] = prediction
    note = None if another else found.schedule_note
    return Settled(size, prediction, schedules.from_diffusers(scheduler), frozenset(said), note)


def _said(answers: Answers) -> dict[str, Any]:
    """Give the settings of the scheduler that were said by hand; the named schedule's are its defaults.

    Raises:
        InvalidInput: two schedules were said.
    """
    if answers.schedule is None:
        return dict(answers.scheduler)
    named = schedules.linear() if answers.schedule is Schedule.LINEAR else schedules.cosine()
    for key in ("beta_schedule", "trained_betas"):
        given = answers.scheduler.get(key)
        if given not in (None, named.config["beta_schedule"]):
            raise InvalidInput(
                "two_schedules",
                f"--schedule {answers.schedule} and the {key} of --config are two schedules: leave one out.",
                field=key,
                given=given,
                allowed=f"--schedule or {key}",
            )
    return {**named.config, **answers.scheduler, "beta_schedule": named.config["beta_schedule"]}
