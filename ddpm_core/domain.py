"""What a model's pictures show, by which its targets are brought into place."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Kind = Literal["human", "cat"]
"""Whose face."""


class Domain(StrEnum):
    """Faces of one kind, or pictures of anything."""

    HUMAN_FACE = "human_face"
    CAT_FACE = "cat_face"
    ANY = "any"

    @property
    def kind(self) -> Kind | None:
        """Whose faces they are; None where they need not be faces."""
        kinds: dict[Domain, Kind] = {Domain.HUMAN_FACE: "human", Domain.CAT_FACE: "cat"}
        return kinds.get(self)
