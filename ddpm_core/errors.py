"""The errors a user can cause, as data: what was wrong, where, and what is allowed."""

from __future__ import annotations

from typing import Any


class InvalidInput(ValueError):
    """Input that cannot be used; answered to its sender alone, never to others in the same batch.

    Attributes:
        code: a stable machine-readable word, such as `out_of_range` or `not_an_image`.
        message: one sentence for people.
        field: the field of the request (or setting) it is about, or None.
        given: what was given, short and never a picture.
        allowed: what is allowed, in words.
    """

    def __init__(
        self, code: str, message: str, *, field: str | None = None, given: Any = None, allowed: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.given = given
        self.allowed = allowed


class Interrupted(Exception):
    """One of a run's processes was told to stop, so all have: its checkpoint is whole, and it is not at its end."""
