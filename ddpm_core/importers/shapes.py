"""A network's settings, read off the names and shapes of its weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ddpm_core.errors import InvalidInput
from ddpm_core.unet import AttentionUNet

LANDMARKS = {
    "UNet2DModel": (
        "conv_in.weight",
        "time_embedding.linear_1.weight",
        "down_blocks.0.resnets.0.conv1.weight",
        "mid_block.resnets.0.conv1.weight",
        "up_blocks.0.resnets.0.conv1.weight",
        "conv_out.weight",
    ),
    "AttentionUNet": (
        "conv0.double_conv.0.weight",
        "down1.emb_layer.1.weight",
        "sa1.attention.in_proj_weight",
        "conv1.0.double_conv.0.weight",
        "up1.emb_layer.1.weight",
        "output.weight",
    ),
}
"""Names that every network of the class has."""


@dataclass(frozen=True)
class Inferred:
    """What weights say about their network.

    Attributes:
        settings: what they determine, with `_class_name`.
        open: settings that they do not determine → what is allowed, in words.
    """

    settings: Mapping[str, Any]
    open: Mapping[str, str] = field(default_factory=dict)


def infer(tensors: Mapping[str, Tensor]) -> Inferred | None:
    """Read the settings off a network's weights; None where it is neither of the known classes.

    Raises:
        InvalidInput: it is one of them, but weights are missing, with their names.
    """
    name = max(LANDMARKS, key=lambda name: len(tensors.keys() & set(LANDMARKS[name])))
    if not tensors.keys() & set(LANDMARKS[name]):
        return None
    _need(tensors, name, LANDMARKS[name])
    return _unet2d(tensors) if name == "UNet2DModel" else _attention_unet(tensors)


def _need(tensors: Mapping[str, Tensor], network: str, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in tensors]
    if missing:
        raise InvalidInput(
            "wrong_checkpoint",
            f"The weights are not a whole {network}: missing keys: {', '.join(missing)}; there are"
            f" {len(tensors)}: {', '.join(sorted(tensors)[:8])} …",
            field="source",
        )


def current_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a UNet2DModel's attention weights the names of today; the hub still has those of before diffusers 0.16."""
    former = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    pattern = re.compile(rf"(attentions\.\d+\.)({'|'.join(former)})(?=\.(?:weight|bias)$)")
    return {pattern.sub(lambda m: m[1] + former[m[2]], key): value for key, value in tensors.items()}


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """Count the different numbers that stand where the pattern's group is."""
    return len({found[1] for key in tensors if (found := re.match(pattern, key))})


def _unet2d(tensors: Mapping[str, Tensor]) -> Inferred:
    scales = _count(tensors, r"down_blocks\.(\d+)\.")
    layers = _count(tensors, r"down_blocks\.0\.resnets\.(\d+)\.")
    first = [f"down_blocks.{i}.resnets.0.conv1.weight" for i in range(scales)]
    _need(tensors, "UNet2DModel", first)
    widths = [len(tensors[key]) for key in first]

    def attends(block: str) -> bool:
        return any(key.startswith(f"{block}.attentions.") for key in tensors)

    kinds = {
        f"{way}_block_types": [
            f"{'Attn' if attends(f'{way}_blocks.{i}') else ''}{way.capitalize()}Block2D" for i in range(scales)
        ]
        for way in ("down", "up")
    }
    settings: dict[str, Any] = {
        "_class_name": "UNet2DModel",
        "in_channels": tensors["conv_in.weight"].shape[1],
        "out_channels": len(tensors["conv_out.weight"]),
        "block_out_channels": widths,
        "layers_per_block": layers,
        **kinds,
        "add_attention": attends("mid_block"),
    }
    time = tensors.get("down_blocks.0.resnets.0.time_emb_proj.weight")
    if time is not None and len(time) == 2 * widths[0]:
        settings["resnet_time_scale_shift"] = "scale_shift"
    if "time_proj.weight" in tensors:
        settings["time_embedding_type"] = "fourier"
    for way in ("down", "up"):
        if any(key.startswith(f"{way}_blocks.0.{way}samplers.0.conv1.") for key in tensors):
            settings[f"{way}sample_type"] = "resnet"
    unknown = {"norm_num_groups": f"one of {_divisors(*widths)}"}
    attending = [w for w, kind in zip(widths, kinds["down_block_types"], strict=True) if kind.startswith("Attn")]
    attending += [w for w, kind in zip(widths[::-1], kinds["up_block_types"], strict=True) if kind.startswith("Attn")]
    attending += widths[-1:] if settings["add_attention"] else []
    if attending:
        unknown["attention_head_dim"] = f"one of {_divisors(*attending)}, or null for one head"
    return Inferred(settings, unknown)


def _attention_unet(tensors: Mapping[str, Tensor]) -> Inferred:
    first = tensors["conv0.double_conv.0.weight"]
    downs = [f"down{i}.emb_layer.1.weight" for i in range(1, 1 + _count(tensors, r"down(\d+)\."))]
    _need(tensors, "AttentionUNet", downs)
    settings: dict[str, Any] = {
        "_class_name": "AttentionUNet",
        "channels": first.shape[1],
        "widths": [len(first), *(len(tensors[key]) for key in downs)],
        "middle": len(tensors["conv1.0.double_conv.0.weight"]),
    }
    dogs = AttentionUNet().config
    if all(settings[key] == dogs[key] for key in settings):
        return Inferred({**settings, "heads": dogs["heads"]})  # the one network of these widths, always with 4 heads
    return Inferred(settings, {"heads": f"one of {_divisors(*settings['widths'])}"})


def _divisors(*numbers: int) -> str:
    common = math.gcd(*numbers)
    return ", ".join(str(n) for n in range(1, common + 1) if common % n == 0)
