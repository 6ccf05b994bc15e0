"""The Inception network that FID and KID are defined by, from a TorchScript file that the user supplies.

`inception-2015-12-05.pt` is StyleGAN's: the network as TensorFlow had it, which scales pictures itself and is closest
to published figures. Any other TorchScript with the interface of torchmetrics' feature networks is taken as well:
(B, 3, H, W) uint8 in, (B, D) features out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ddpm_core.errors import InvalidInput

_ALLOWED = "a TorchScript from (B, 3, H, W) uint8 to features, such as inception-2015-12-05.pt"


def read_inception(file: Path, device: torch.device | str = "cpu") -> Callable[[Tensor], Tensor]:
    """Give the function from pictures, (B, H, W, 3) uint8, to features, (B, D) float32; D is 2048 with the usual file.

    Raises:
        InvalidInput: no such file, or no TorchScript.
    """
    if not file.is_file():
        raise _refused(file, "there is no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # nothing else reads such a file
            script = torch.jit.load(str(file), map_location=device).eval()  # type: ignore[no-untyped-call]
    except Exception:  # what is no TorchScript fails in many ways
        raise _refused(file, "it is no TorchScript (state dicts of pytorch-fid hold no network)") from None
    # StyleGAN's gives probabilities unless it is told.
    takes = {argument.name for argument in script.forward.schema.arguments}
    more = {"return_features": True} if "return_features" in takes else {}

    def run(pixels: Tensor) -> Tensor:
        features: Tensor = script(pixels.to(device).permute(0, 3, 1, 2), **more)
        return features.float().flatten(1)

    return run


def _refused(file: Path, why: str) -> InvalidInput:
    return InvalidInput(
        "bad_inception",
        f"{file} cannot be used as the Inception network: {why}. Use {_ALLOWED}.",
        field="inception",
        given=str(file),
        allowed=_ALLOWED,
    )
