"""The science of the product: guided denoising diffusion. Knows no server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpm_core.pipeline import Pipeline, load

__all__ = ["Pipeline", "load"]


def __getattr__(name: str) -> Any:
    """Import the pipeline when it is asked for: the trainer and the face tools do without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ddpm_core import pipeline

    return getattr(pipeline, name)
