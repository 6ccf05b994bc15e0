"""The one kind of failure that the commands and services tell a person in a line."""

from __future__ import annotations


class ServiceError(Exception):
    """Something around TorchServe failed; the message is one sentence for people."""
