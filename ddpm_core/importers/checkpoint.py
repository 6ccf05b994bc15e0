"""A checkpoint file as a source: a plain state dict, a training checkpoint, or a whole pickled model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ddpm_core import schedule as schedules
from ddpm_core.errors import InvalidInput
from ddpm_core.importers import pickles
from ddpm_core.importers.found import Found, is_averaged, side_of

# Words for the same facts in the checkpoints of well-known trainers.
_PREDICTIONS = {"pred_noise": "epsilon", "pred_v": "v_prediction", "pred_x0": "sample"}
_SIZES = ("image_size", "sample_size")


def read(path: Path) -> Found:
    """Read a `.pt`, `.pth`, `.ckpt`, `.bin` or `.safetensors` file; nothing in it is run.

    Raises:
        InvalidInput: it is refused, or holds no tensors.
    """
    found = gather(pickles.read(path), path.name)
    others = (file for file in path.parent.iterdir() if file.suffix in pickles.SUFFIXES and file.name != path.name)
    beside = sorted(file.name for file in others if is_averaged(file.stem))
    return replace(found, ema=is_averaged(path.stem), beside=tuple(beside))


def gather(held: Any, source: str) -> Found:
    """Find the tensors, and what is said of their network, in mappings, lists and records.

    Raises:
        InvalidInput: there are no tensors.
    """
    tensors: dict[str, Tensor] = {}
    facts: dict[str, list[Any]] = {}
    network: dict[str, Any] = {}
    for name, value in _walk(held, "", set()):
        if isinstance(value, Tensor):
            tensors[name.replace("_orig_mod.", "")] = value  # torch.compile's, also in the middle
        elif isinstance(value, Mapping):
            network = network or {key: each for key, each in value.items() if key != "_use_default_values"}
        else:
            facts.setdefault(name.rsplit(".", 1)[-1], []).append(value)
    if not tensors:
        raise InvalidInput("no_tensors", f"{source} holds no tensors.", field="source", given=source)
    if "block_out_channels" in network:
        network.setdefault("_class_name", "UNet2DModel")
    predictions = facts.get("prediction_type", []) + facts.get("objective", [])
    scheduler, note = _schedule_of(tensors)
    return Found(
        source=source,
        tensors=tensors,
        network=network,
        scheduler=scheduler,
        image_size=_agreed([side_of(value) for name in _SIZES for value in facts.get(name, [])]),
        prediction_type=_agreed([_PREDICTIONS.get(value, value) for value in predictions if isinstance(value, str)]),
        schedule_note=note,
    )


def _walk(value: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Give every tensor, every plain value and every network's settings in a checkpoint, by its full name."""
    if isinstance(value, Tensor):
        yield name, value.detach()
        return
    if not isinstance(value, Mapping | list | tuple | pickles.Record):
        yield name, value
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, pickles.Record):
        children = _attributes(value)
    elif isinstance(value, Mapping):
        children = {str(key): each for key, each in value.items()}
        if "block_out_channels" in children:
            yield name, children
    else:
        children = {str(i): each for i, each in enumerate(value)}
        if name.rsplit(".", 1)[-1] in _SIZES:
            yield name, value
    for key, each in children.items():
        yield from _walk(each, f"{name}.{key}" if name else key, seen)


def _attributes(record: pickles.Record) -> dict[str, Any]:
    """Give what an object held; a module's tensors and parts by the names that `state_dict` gives them."""
    own = dict(record.attributes)
    hidden = own.pop("_non_persistent_buffers_set", None) or ()
    parts: dict[str, Any] = {}
    for group in ("_parameters", "_buffers", "_modules"):
        held = own.pop(group, None)
        if isinstance(held, Mapping):
            parts |= {str(key): each for key, each in held.items() if each is not None and key not in hidden}
    return own | parts


def _schedule_of(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], str | None]:
    """Read the schedule out of the tables that many diffusion classes keep beside the network."""
    for key, table in tensors.items():
        kind = key.rsplit(".", 1)[-1]
        if kind in ("betas", "alphas_cumprod") and table.ndim == 1 and len(table) > 1:
            values = table.double().numpy()
            betas = values if kind == "betas" else 1 - values / np.concatenate([[1.0], values[:-1]])
            break
    else:
        return {}, None
    for known in (schedules.linear(len(betas)), schedules.cosine(len(betas))):
        if np.allclose(np.cumprod(1 - betas), known.alpha_bar[1:], rtol=1e-3, atol=1e-6):
            return dict(known.config), f"The schedule was read from `{key}`: {known.config['beta_schedule']}."
    config = {"num_train_timesteps": len(betas), "trained_betas": betas.tolist()}
    return config, f"The schedule was read from `{key}`, number by number."


def _agreed(values: list[Any]) -> Any:
    """Give the one value that all places name; None where there is none or they differ."""
    different = {value for value in values if value is not None}
    return different.pop() if len(different) == 1 else None
