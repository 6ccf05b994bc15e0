"""From a source to a bundle, whole or not at all."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import ValidationError
from torch import nn

from ddpm_core.bundle import Bundle, Manifest, NetworkCode, read_bundle, write_bundle
from ddpm_core.errors import InvalidInput
from ddpm_core.importers import checkpoint, folder, networks, pickles
from ddpm_core.importers.answers import Answers, Settled, settle
from ddpm_core.importers.card import model_card
from ddpm_core.importers.files import check_sum
from ddpm_core.importers.found import Choice, Found, unused_averages
from ddpm_core.pipeline import load
from ddpm_core.pixels import to_pixels
from ddpm_core.plan import make_plan
from ddpm_core.sampling import sample
from ddpm_core.writer import only_writer

SAMPLE = "sample.png"


def import_model(source: str, out: Path, answers: Answers) -> tuple[Bundle, tuple[str, ...]]:
    """Make a bundle of a source, and one image with it.

    Args:
        source: a folder in diffusers' form, a checkpoint file, or the name of a repository of the Hugging Face hub.
        out: the bundle's folder; must not exist. Nothing is there when this fails.
        answers: what is said by hand.

    Returns:
        the bundle, and what is worth telling, a sentence each.

    Raises:
        InvalidInput: the source is refused, is incomplete or of another kind, does not say all that is needed (each
            with the name of its option), or the network makes no image.
        OSError: a file that cannot be read or written.
    """
    if out.exists():
        raise InvalidInput("out_exists", f"{out} exists already.", field="out", given=str(out))
    found = _read(source, answers.weights, answers.sha256)
    planned = networks.plan(found, answers)
    settled = settle(found, answers, planned.settings, planned.open)
    home = next(parent for parent in out.absolute().parents if parent.exists())
    with only_writer(out), tempfile.TemporaryDirectory(prefix=".import-", dir=home) as aside:
        place = Path(aside) / "bundle"
        place.mkdir()
        code = None
        if answers.code is not None:
            code = (place / answers.code[0].name, answers.code[1])
            shutil.copyfile(answers.code[0], code[0])
        network, choice = networks.build(found, planned, code)
        manifest = _manifest(found, answers, settled, network, choice)
        notes = (*found.notes, *_notes(found, settled, choice, planned))
        card = model_card(manifest, SAMPLE, _told(answers, settled, planned), notes)
        settings = None if code is None else planned.settings
        write_bundle(place, network, settled.schedule.config, manifest, card, settings)
        _prove(place, network, found.source).save(place / SAMPLE)
        out.parent.mkdir(parents=True, exist_ok=True)
        place.rename(out)
    return read_bundle(out), notes


def _read(source: str, weights: str | None, sha256: str | None) -> Found:
    path = Path(source)
    if path.is_dir():
        return folder.read(path, weights=weights, sha256=sha256)
    if path.suffix in pickles.SUFFIXES:
        if sha256 is not None:
            check_sum(path, sha256)
        return replace(checkpoint.read(path), prefix=weights)
    if not path.exists() and folder.is_hub_id(source):
        return folder.fetch(source, weights, sha256)
    raise InvalidInput(
        "wrong_source",
        f"{source} is neither a folder, nor a repository of the hub such as google/ddpm-celebahq-256, nor a file"
        f" ending in {', '.join(pickles.SUFFIXES)}.",
        field="source",
        given=source,
        allowed=", ".join(pickles.SUFFIXES),
    )


def _manifest(found: Found, answers: Answers, settled: Settled, network: nn.Module, choice: Choice) -> Manifest:
    first = next((value for value in network.state_dict().values() if value.ndim == 4), None)
    inside = first.shape[1] if first is not None else 3
    provenance: dict[str, Any] = {
        "source": found.source,
        "terms": answers.terms or f"Terms of use: those of its source, {found.source}.",
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
    if found.revision is not None:
        provenance["revision"] = found.revision
    facts = {
        "name": answers.name,
        "version": answers.version,
        "domain": answers.domain,
        "image_size": settled.image_size,
        "channels": inside if inside in (1, 3) else 3,
        "prediction_type": settled.prediction_type,
        "weights": "ema" if found.ema or choice.ema else "raw",
        "provenance": provenance,
    }
    try:
        if answers.code is not None:
            facts["network"] = NetworkCode(file=answers.code[0].name, network=answers.code[1])
        return Manifest.model_validate(facts)
    except ValidationError as error:
        first_error = error.errors()[0]
        field = ".".join(str(part) for part in first_error["loc"])
        raise InvalidInput(
            "out_of_range",
            f"{field} = {first_error['input']!r} is not possible: {first_error['msg']}.",
            field=field,
            given=first_error["input"],
        ) from None


def _notes(found: Found, settled: Settled, choice: Choice, planned: networks.Planned) -> list[str]:
    notes = [] if settled.note is None else [settled.note]
    averaged = choice.ema or found.ema
    left = {} if averaged else unused_averages(found, choice)
    if choice.prefix:
        kind = "averaged (EMA) ones" if averaged else "raw ones" + ("" if left else "; none are named as averaged")
        notes.append(f"The weights were found under `{choice.prefix}`: {kind}.")
    if left:
        listed = ", ".join(f"`{place}` ({count})" for place, count in left.items())
        notes.append(f"Tensors that are named as if averaged do not fit the network and were not used: {listed}.")
    if found.beside and not averaged:
        listed = ", ".join(f"`{name}`" for name in found.beside)
        notes.append(f"Files beside it that are named as averaged weights were not used: {listed}.")
    if planned.determined.get("_class_name") == "UNet2DModel":
        notes.append(
            "What weights cannot tell about a UNet2DModel and nobody said (norm_eps, freq_shift, flip_sin_to_cos,"
            " downsample_padding, act_fn) is as diffusers has it by default; `--config` sets it."
        )
    return notes


def _told(answers: Answers, settled: Settled, planned: networks.Planned) -> dict[str, Mapping[str, Any]]:
    """Give what the bundle is made of, by who said it."""
    by_hand = {key: value for key, value in {**answers.network, **answers.scheduler}.items() if key != "trained_betas"}
    schedule = settled.schedule.config
    facts = {
        "image_size": settled.image_size,
        "prediction_type": settled.prediction_type,
        "num_train_timesteps": settled.schedule.num_levels,
        "beta_schedule": "a table of its own" if schedule.get("trained_betas") else schedule.get("beta_schedule"),
    }
    said = {key for key in ("image_size", "prediction_type") if getattr(answers, key) is not None} | settled.by_hand
    if "trained_betas" in said:
        said |= {"beta_schedule", "num_train_timesteps"}
    by_hand |= {key: value for key, value in facts.items() if key in said}
    shapes = {key: value for key, value in planned.determined.items() if key not in by_hand}
    source = {key: value for key, value in {**planned.settings, **facts}.items() if key not in {**by_hand, **shapes}}
    return {
        "the shapes of the weights": shapes,
        "the one who imported it": by_hand,
        "the source": {key: value for key, value in source.items() if not re.match("_(?!class)", key)},
    }


def _prove(bundle: Path, network: nn.Module, source: str) -> Image.Image:
    """Make one image with what lies on the disk, as serving will.

    Raises:
        InvalidInput: it cannot, with the other task that the network is for; or numbers in it are not finite.
    """
    try:
        pipeline = load(bundle, run_code=True)  # named by --model-file
        (x,) = sample(pipeline.denoiser, make_plan(pipeline.bundle, num_images=1, seed=0).start())
    except Exception as error:  # somebody else's network may fail in any way
        if (other := networks.explain(network, error, source)) is not None:
            raise other from error
        raise _no_image(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    if not x.isfinite().all():
        raise _no_image("it is not finite")
    return Image.fromarray(to_pixels(x))


def _no_image(why: str) -> InvalidInput:
    return InvalidInput(
        "no_image", f"The weights fit, but no image could be made: {why}. Is --image-size right?", field="source"
    )
