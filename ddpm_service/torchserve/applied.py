"""What `ddpm serve` has applied of models.yaml: told beside its sockets, for the commands that change that file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ddpm_service.errors import ServiceError
from ddpm_service.torchserve import desired
from ddpm_service.torchserve.sockets import Sockets

_FILE = "applied.json"
_LOOK_SECONDS = 0.1
# What was changed is loaded already; only a change by somebody else, which is under way, keeps the service from it.
_LONGEST_SECONDS = 120.0


class Applied(BaseModel):
    """What the front door answers by now.

    Attributes:
        models: the file, absolute.
        text: what stood in it.
        failed: (name, version, why) of what could not be served.
        vouched: a file of checksums: no other archive may be loaded there.
    """

    model_config = ConfigDict(frozen=True)
    models: Path
    text: str
    failed: list[tuple[str, str, str]] = []
    vouched: Path | None = None


def tell(
    sockets: Sockets, models: Path, text: bytes, failed: Mapping[tuple[str, str], str], vouched: Path | None = None
) -> None:
    """Say what is applied; where that cannot be written, a command waits for it in vain, and nobody else does."""
    said = Applied(
        models=models.resolve(),
        text=text.decode(),
        failed=[(*key, why) for key, why in failed.items()],
        vouched=vouched.resolve() if vouched else None,
    )
    file = sockets.folder / _FILE
    draft = file.with_suffix(".part")
    with suppress(OSError):
        draft.write_text(said.model_dump_json(), encoding="utf-8")
        draft.replace(file)


def wait_until_applied(sockets: Sockets, models: Path, say: Callable[[str], None]) -> Applied | None:
    """Return when a running service has applied what stands in models.yaml now; None where no service applies it.

    Args:
        sockets: those of the service.
        models: the `models.yaml`.
        say: told in a line that it has to be waited for.

    Raises:
        ServiceError: the service has not applied it after two minutes.
        DesiredError: models.yaml cannot be read.
    """
    end = time.monotonic() + _LONGEST_SECONDS
    told = False
    while sockets.in_use:
        said = _read(sockets)
        if said is not None and said.models != models.resolve():
            return None
        if said is not None and said.text.encode() == desired.read(models):
            return said
        if not told:
            say(f"waiting until the service has applied {models}")
            told = True
        if time.monotonic() > end:
            raise ServiceError(
                f"{models} is changed, but the service has not applied it after {_LONGEST_SECONDS:.0f} s; "
                "what `ddpm serve` prints says why"
            )
        time.sleep(_LOOK_SECONDS)
    return None


def vouched(sockets: Sockets) -> Path | None:
    """Give the file of checksums that a running service wants archives to be in; None where it wants none."""
    said = _read(sockets) if sockets.in_use else None
    return said.vouched if said else None


def _read(sockets: Sockets) -> Applied | None:
    try:
        return Applied.model_validate_json((sockets.folder / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:  # it has just started
        return None
