"""How a larger network begins with the weights of a smaller one: it computes what that one does, and learns from there.

Source: net2net, Chen et al. 2016 (arXiv:1511.05641); new residual blocks that end in nought, Zhang et al. 2019
(arXiv:1901.09321).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from ddpm_core.bundle import Bundle
from ddpm_core.cascade import CascadedUNet
from ddpm_core.errors import InvalidInput


def deepened(weights: Mapping[str, Tensor], before: UNet2DModel, network: UNet2DModel) -> dict[str, Tensor]:
    """Give the weights of a UNet for one with more layers a block, the same but for its blocks.

    A new layer gives what it is given: its last convolution is nought, and on the way up its shortcut leaves the
    picture of the way down out. On the way up it comes behind the first, which alone changes the width.

    Args:
        weights: of `before`; those of the same layers stay as they are.
        before: the network that is finished.
        network: the deeper one, with fresh weights; left as it is.
    """
    fresh, more = network.state_dict(), network.config["layers_per_block"] - before.config["layers_per_block"]
    if more <= 0:
        return dict(weights)
    old = {_moved(key, more): weight for key, weight in weights.items()}
    return {key: old[key] if key in old else _nought(key, weight) for key, weight in fresh.items()} | old


def _moved(key: str, more: int) -> str:
    """Name a weight as the deeper network does: on the way up new layers come behind the first."""
    parts = key.split(".")
    if parts[0] == "up_blocks" and parts[2] in ("resnets", "attentions") and parts[3] != "0":
        parts[3] = str(int(parts[3]) + more)
    return ".".join(parts)


def _nought(key: str, fresh: Tensor) -> Tensor:
    """Give a weight of a new layer that makes it give what it is given."""
    if ".conv_shortcut." in key:
        nothing = torch.zeros_like(fresh)
        if key.endswith("weight"):
            nothing[:, : len(fresh), 0, 0] = torch.eye(len(fresh))
        return nothing
    return torch.zeros_like(fresh) if ".conv2." in key or ".to_out." in key else fresh


def enlarged(weights: Mapping[str, Tensor], bundle: Bundle, network: nn.Module, described: Bundle) -> dict[str, Tensor]:
    """Give the weights of a model of half the side to the coarse band of a network on bands, and nought to detail.

    In a cascade it is the coarse network, and the one for detail begins with what it sees in a picture.

    Args:
        weights: of the model.
        bundle: the model.
        network: the one on bands, with fresh weights; left as it is.
        described: what it will be.

    Raises:
        InvalidInput: the model has another side.
    """
    side = described.manifest.image_size // 2
    if bundle.manifest.image_size != side:
        raise InvalidInput(
            "other_model",
            f"init = {bundle.path} makes pictures of {bundle.manifest.image_size} px; bands begin with {side} px.",
            field="init",
            given=bundle.manifest.image_size,
            allowed=str(side),
        )
    coarse, every = bundle.network_shape[0], described.network_shape[0]
    widths = {every}
    if isinstance(network, CascadedUNet):
        widths = {every + coarse, every - coarse}
        weights = {f"{part}.{key}": weight for part in ("coarse", "detail") for key, weight in weights.items()}
    wanted, larger = network.state_dict(), {}
    for key, weight in weights.items():
        shape = wanted[key].shape if key in wanted else weight.shape
        fits = len(shape) == len(weight.shape) and all(
            ours == theirs or (theirs == coarse and ours in widths)
            for ours, theirs in zip(shape, weight.shape, strict=True)
        )
        larger[key] = weight.new_zeros(shape) if fits else weight
        if not key.startswith("detail.conv_out"):
            larger[key][tuple(slice(size) for size in weight.shape)] = weight
    return larger
