"""A trained model on disk: the diffusers layout with a `bundle.json` that says all that serving needs to know.

faces-64/2.1/
  model_index.json  unet/{config.json, *.safetensors}  scheduler/scheduler_config.json
  bundle.json  README.md
  guide/{config.json, *.safetensors}   where it has a worse network to be guided by
  coarse/*.safetensors                 of a cascade, where its coarse network's weights lie by themselves: they may be
                                       a link to those of the model that it is from
"""

from ddpm_core.bundle.files import (
    GUIDE_CONFIG,
    GUIDE_WEIGHTS,
    MANIFEST,
    MODEL_INDEX,
    SCHEDULER_CONFIG,
    UNET_CONFIG,
    WEIGHTS,
    sha256,
)
from ddpm_core.bundle.manifest import Gate, Guide, Manifest, NetworkCode, SamplingDefaults, Statistics, Tone, Wholeness
from ddpm_core.bundle.networks import build_network, fit_weights
from ddpm_core.bundle.reading import Bundle, read_bundle
from ddpm_core.bundle.writing import add_guide, keep_statistics, write_bundle

__all__ = [
    "GUIDE_CONFIG",
    "GUIDE_WEIGHTS",
    "MANIFEST",
    "MODEL_INDEX",
    "SCHEDULER_CONFIG",
    "UNET_CONFIG",
    "WEIGHTS",
    "Bundle",
    "Gate",
    "Guide",
    "Manifest",
    "NetworkCode",
    "SamplingDefaults",
    "Statistics",
    "Tone",
    "Wholeness",
    "add_guide",
    "build_network",
    "fit_weights",
    "keep_statistics",
    "read_bundle",
    "sha256",
    "write_bundle",
]
