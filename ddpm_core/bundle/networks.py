"""The network of a bundle: made from its config, and given its weights or refused."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ddpm_core.bundle.files import broken, existing
from ddpm_core.errors import InvalidInput

_CLASSES = "UNet2DModel, CascadedUNet, AttentionUNet"


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
        case "CascadedUNet":
            from ddpm_core.cascade import CascadedUNet

            return CascadedUNet(**settings)
        case other:
            raise InvalidInput(
                "unknown_network",
                f"The network class {other} is not known; use one of {_CLASSES}, or bring its code.",
                field="_class_name",
                given=other,
                allowed=_CLASSES,
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
        raise broken(source, "; ".join(parts))
    network.load_state_dict(dict(weights))


def channels_of(config: Mapping[str, Any]) -> Any:
    """Give the channels that a network of this config works on: the two classes name them differently."""
    return config.get("in_channels", config.get("channels", 3))


def _class_of(file: Path, name: str) -> type[nn.Module]:
    module = ModuleType(f"bundled_network_{file.stem}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # dataclasses and pickling look their module up
    # Not imported: beside the file may lie bytecode of something else.
    exec(compile(existing(file).read_bytes(), file, "exec"), module.__dict__)
    return getattr(module, name)  # type: ignore[no-any-return]
