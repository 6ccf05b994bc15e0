"""The face network for commands that measure faces: used where it is installed, and told of where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from ddpm_core.evaluation.face_network import FaceNetwork


def face_network(domain: str) -> FaceNetwork | None:
    """Load the network that judges a model's kind of picture; say so on standard error where it is missing."""
    from ddpm_core.evaluation.face_figures import network_for
    from ddpm_core.evaluation.face_network import DOMAIN, INSTALL

    network = network_for(domain)
    if network is None and domain == DOMAIN:
        typer.echo(f"Whole faces and identities are left out, as no face network is installed: {INSTALL}", err=True)
    return network
