"""The files of a bundle: their names, and how each is read or refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ddpm_core.errors import InvalidInput
from ddpm_core.whole import write_whole

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
COARSE_WEIGHTS = "coarse/diffusion_pytorch_model.safetensors"
UNET_CONFIG = "unet/config.json"
SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
GUIDE_WEIGHTS = "guide/diffusion_pytorch_model.safetensors"
GUIDE_CONFIG = "guide/config.json"
MODEL_INDEX = "model_index.json"
MANIFEST = "bundle.json"


def sha256(path: Path) -> str:
    """Give the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def existing(path: Path) -> Path:
    """Give the path of a file that is there; refuse the bundle where it is missing."""
    if not path.is_file():
        is_here = path.parent.is_dir()
        raise broken(path.parent, f"{path.name} is missing" if is_here else "there is no such folder")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; refuse the bundle where the file holds none."""
    file = existing(path)
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise broken(path.parent, f"{path.name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise broken(path.parent, f"{path.name} must hold a JSON object")
    return value


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document whole; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def broken(path: Path, why: str) -> InvalidInput:
    """Make the error for a bundle that is not usable."""
    return InvalidInput("broken_bundle", f"{path} is not a usable bundle: {why}.", field="bundle", given=str(path))
