"""A model in diffusers' form as a source: a folder, or a repository of the Hugging Face hub."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddpm_core.bundle import MANIFEST
from ddpm_core.errors import InvalidInput
from ddpm_core.importers import pickles
from ddpm_core.importers.checkpoint import gather
from ddpm_core.importers.files import WeightSet, check_sum, choose_set, unread, weight_sets
from ddpm_core.importers.found import Found, side_of

_HUB_ID = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w.-]+))?")
_WEIGHTS = "diffusion_pytorch_model"
# The forward process is the same β table in all of these; others (score SDEs, flows) are other mathematics.
SCHEDULERS = (
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "PNDMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
)
_OTHER_SYSTEMS = ("vae", "vqvae", "text_encoder", "movq", "prior", "transformer")


def is_hub_id(source: str) -> bool:
    """Say whether a source that is no path can name a repository: `google/ddpm-celebahq-256`, or with `@REVISION`."""
    return _HUB_ID.fullmatch(source) is not None


def fetch(named: str, weights: str | None = None, sha256: str | None = None) -> Found:
    """Download a repository of the hub into its cache, or take it from there, and read it.

    What is fetched are the settings and the weights; pickled ones and variants only where there are no others.

    Raises:
        InvalidInput: it cannot be reached or found, or is no model of a kind that can be served.
    """
    parts = _HUB_ID.fullmatch(named)
    assert parts is not None
    repository, revision = parts["repository"], parts["revision"]
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    variants = ["*.fp16*", "*.non_ema*"]
    try:
        for ending, ignored in (("safetensors", variants), ("bin", variants), ("safetensors", []), ("bin", [])):
            patterns = ["*.json", *(f"{place}{_WEIGHTS}*.{ending}" for place in ("", "unet/", "unet_ema/"))]
            if weights is not None:
                patterns, ignored = ["*.json", f"*{_WEIGHTS}*"], []
            folder = Path(
                snapshot_download(repository, revision=revision, allow_patterns=patterns, ignore_patterns=ignored)
            )
            if any(folder.rglob(f"{_WEIGHTS}*.{ending}")):
                break
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())[:300]
        raise InvalidInput(
            "hub_failed",
            f"There is no file or folder {named}, and the Hugging Face hub did not give a repository of that"
            f" name: {why}",
            field="source",
            given=named,
        ) from error
    return read(folder, weights=weights, sha256=sha256, source=repository, revision=folder.name)


def read(
    folder: Path,
    *,
    weights: str | None = None,
    sha256: str | None = None,
    source: str | None = None,
    revision: str | None = None,
) -> Found:
    """Read a pipeline's folder, with `unet/` and `scheduler/` or all at its root, or the folder of a UNet alone.

    Args:
        folder: where it lies.
        weights: the file to take them from, where there are several.
        sha256: of the one file that they are taken from; None where nobody says.
        source: what it is called; the folder's name if not given.
        revision: its commit.

    Raises:
        InvalidInput: a file that is missing, damaged or refused, or a model of another kind.
    """
    if (folder / MANIFEST).exists():
        raise _wrong(folder, "it is a bundle already: `ddpm pack` and `ddpm sample` take it as it is")
    index = _json(folder / "model_index.json") if (folder / "model_index.json").exists() else {}
    others = [part for part in _OTHER_SYSTEMS if part in index or (folder / part).is_dir()]
    if others:
        raise _wrong(folder, f"it has a {others[0]}: only networks that work on the pixels themselves can be served")
    networks = [folder / "unet_ema", folder / "unet", folder]
    network = next((place for place in networks if (place / "config.json").exists()), None)
    if network is None and not index and (sets := weight_sets(folder)):
        if sha256 is not None:
            raise _wrong(folder, "a checksum is of one file: name that as the source")
        return replace(_bare(folder, sets, source or folder.resolve().name), prefix=weights)
    if network is None:
        raise _wrong(folder, "there is no config.json of a network, neither in it nor in its unet/")
    ema = network.name == "unet_ema"
    scheduler: dict[str, Any] = {}
    for file in (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"):
        if file.exists():
            scheduler = _json(file)
            break
    if scheduler and scheduler.get("_class_name", SCHEDULERS[0]) not in SCHEDULERS:
        raise _wrong(
            folder, f"it was trained for {scheduler['_class_name']}; what can be served: {', '.join(SCHEDULERS)}"
        )
    settings = _json(network / "config.json")
    sets = weight_sets(network)
    if not sets:
        raise _wrong(network, f"there is neither {_WEIGHTS}.safetensors nor {_WEIGHTS}.bin")
    chosen, notes = choose_set(network, sets, weights)
    notes += unread(chosen)
    if sha256 is not None:
        check_sum(chosen.folder / chosen.name, sha256)
    ema = ema or chosen.variant == "ema" or any(each.variant == "non_ema" for each in sets if each != chosen)
    return Found(
        source=source or folder.resolve().name,
        tensors=chosen.read(),
        network=settings,
        scheduler={key: value for key, value in scheduler.items() if not key.startswith("_")},
        image_size=side_of(settings.get("sample_size")),
        prediction_type=scheduler.get("prediction_type", "epsilon") if scheduler else None,
        ema=ema,
        notes=(("The averaged weights of `unet_ema` were taken.",) if network.name == "unet_ema" else ()) + notes,
        revision=revision,
    )


def _bare(folder: Path, sets: Sequence[WeightSet], source: str) -> Found:
    """Read a folder of weights alone, as Accelerate's `save_state` writes it: models, and what else was registered."""
    held: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    for stem in dict.fromkeys(each.stem for each in sets):
        chosen, said = choose_set(folder, [each for each in sets if each.stem == stem], None)
        held[stem] = chosen.read()
        notes += said
    for file in sorted(folder.glob("custom_checkpoint_*.pkl")):
        held[file.stem] = pickles.read(file)
    return replace(gather(held, source), notes=notes)


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _wrong(file.parent, f"{file.name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _wrong(file.parent, f"{file.name} does not hold a JSON object")
    return value


def _wrong(folder: Path, why: str) -> InvalidInput:
    return InvalidInput("wrong_source", f"{folder} cannot be imported: {why}.", field="source", given=str(folder))
