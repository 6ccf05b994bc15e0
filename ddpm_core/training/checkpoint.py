"""Checkpoints: whole or not there, each a bundle that can be sampled, with what resuming needs beside it.

RUN/checkpoints/step-00001000/
  model_index.json  unet/  scheduler/  bundle.json  README.md     the averaged network, a bundle
  training/{network.safetensors, state.pt}                        the raw network; optimizer, counters
RUN/last, RUN/best      links to two of them; all others are removed
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ddpm_core.bundle import WEIGHTS
from ddpm_core.errors import InvalidInput

NETWORK = "training/network.safetensors"
STATE = "training/state.pt"


def save(
    run: Path, step: int, write_bundle: Callable[[Path], None], network: nn.Module, state: dict[str, Any], *, best: bool
) -> Path:
    """Write a checkpoint aside, then rename it and move the links; a kill at any moment leaves a whole one.

    Args:
        run: the run's folder.
        step: optimizer steps made.
        write_bundle: writes the bundle into the folder it is given.
        network: the raw network.
        state: tensors, numbers, lists and mappings of them.
        best: whether it is the best so far.

    Raises:
        OSError: it could not be written (a full disk); the former checkpoint stays.
    """
    folder = run / "checkpoints"
    aside, final = folder / ".partial", folder / f"step-{step:08d}"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        (aside / "training").mkdir(parents=True)
        write_bundle(aside)
        weights = {key: value.detach().contiguous().cpu() for key, value in network.state_dict().items()}
        save_file(weights, aside / NETWORK)
        with (aside / STATE).open("wb") as opened:  # by us, so that its errors come as they are
            torch.save(state, opened)
        for file in aside.rglob("*"):
            if file.is_file():
                _flush(file)
        if final.exists():  # the same step again, after a resume: its content is the same
            shutil.rmtree(final)
        aside.rename(final)
    except SafetensorError as error:  # the library's name for whatever the system said
        shutil.rmtree(aside, ignore_errors=True)
        raise OSError(str(error)) from error
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    for link in ["last"] + ["best"] * best:
        _point(run / link, final)
    kept = {(run / link).resolve() for link in ("last", "best")}
    for old in folder.glob("step-*"):
        if old.resolve() not in kept:
            shutil.rmtree(old)
    return final


def latest(run: Path) -> Path:
    """Give the newest whole checkpoint of a run.

    Raises:
        InvalidInput: there is none.
    """
    found = sorted((run / "checkpoints").glob("step-*"))
    if not found:
        raise InvalidInput("no_checkpoint", f"There is no checkpoint in {run}.", field="run", given=str(run))
    return found[-1]


def load(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Give raw weights, averaged weights and the state, on the CPU; only tensors and plain values are unpickled."""
    state: dict[str, Any] = torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)
    return load_file(checkpoint / NETWORK), load_file(checkpoint / WEIGHTS), state


def _point(link: Path, target: Path) -> None:
    """Make or move a link in one step."""
    aside = link.with_name(f".{link.name}.new")
    aside.unlink(missing_ok=True)
    aside.symlink_to(os.path.relpath(target, link.parent))
    aside.replace(link)


def _flush(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
