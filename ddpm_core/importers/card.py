"""The model card of an imported bundle: where it comes from, what was inferred, what was said by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddpm_core.bundle import Manifest


def model_card(manifest: Manifest, picture: str, told: Mapping[str, Mapping[str, Any]], notes: Sequence[str]) -> str:
    """Give the README of an imported bundle.

    Args:
        manifest: of the bundle.
        picture: file of the sample beside the card.
        told: who or what said it → setting → value.
        notes: what else is worth knowing, a sentence each.
    """
    seen = manifest.provenance
    rows = "\n".join(f"| `{key}` | {value} | {who} |" for who, facts in told.items() for key, value in facts.items())
    remarks = "".join(f"- {note}\n" for note in notes)
    revision = f" at revision `{seen['revision']}`" if "revision" in seen else ""
    weights = "the averaged (EMA) weights" if manifest.weights == "ema" else "the weights as they were given"
    return f"""# {manifest.name} {manifest.version}

{seen["terms"]}

A denoising diffusion model of {manifest.image_size} px images ({manifest.domain}), imported from
`{seen["source"]}`{revision}: {seen["parameters"]:,} parameters, {weights}.

![the sample that was made to prove that it works: seed 0, not chosen]({picture})

{remarks}
| setting | value | said by |
|---|---|---|
{rows}
"""
