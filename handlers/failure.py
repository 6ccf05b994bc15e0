"""What a client is told of a failure; and the end of a worker whose device is lost."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import NoReturn

from ddpm_api import Error, InvalidRequest
from ddpm_core.device import is_lost
from ddpm_core.engine import Busy
from ddpm_core.errors import InvalidInput

log = logging.getLogger(__name__)


def explain(problem: Exception) -> Error:
    """Put a failure in words for its client.

    What nobody foresaw is logged by its kind and place alone: its words may quote a picture. A lost device ends the
    process: a worker that lives and fails every request would look ready.
    """
    if is_lost(problem):
        _end(problem)
    match problem:
        case InvalidRequest():
            return problem.error
        case InvalidInput():
            return Error(
                code=problem.code,
                message=problem.message,
                field=problem.field,
                given=problem.given,
                allowed=problem.allowed,
            )
        case Busy():
            return Error(code="busy", message=str(problem), retry_after=problem.retry_after)
    place = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(problem.__traceback__)[-2:]]
    log.error("a request failed: %s in %s", type(problem).__name__, place)
    return Error(code="internal", message="The service failed on this request; it may be tried again.")


def _end(problem: Exception) -> NoReturn:
    """End this process, so that TorchServe starts another, which may find the device well."""
    log.critical("the device is lost and this worker ends: %s", str(problem).partition("\n")[0])
    sys.stdout.flush()  # the last figures
    os._exit(1)
