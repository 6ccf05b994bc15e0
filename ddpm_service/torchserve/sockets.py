"""Where the TorchServe of `ddpm serve` listens: where no browser and no other user of the machine gets."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ddpm_service.errors import ServiceError

_CENTURY_MINUTES = 100 * 365 * 24 * 60


@dataclass(frozen=True)
class Sockets:
    """Unix sockets in a folder that only its user may enter: one folder for a configuration, so that it is found again.

    TorchServe's gRPC knows no unix sockets. It gets free ports, and answers nobody who cannot read TorchServe's keys,
    which lie in the folder too.
    """

    folder: Path

    @classmethod
    def of(cls, config: Path) -> Sockets:
        """Those of the TorchServe that `ddpm serve` runs by a `config.properties`."""
        name = hashlib.sha256(os.fsencode(config.resolve())).hexdigest()[:12]
        return cls(Path(tempfile.gettempdir()) / f"ddpm-{os.getuid()}-{name}")

    @property
    def inference(self) -> str:
        """Where predictions are answered."""
        return f"unix:{self.folder}/inference"

    @property
    def management(self) -> str:
        """Where models are registered."""
        return f"unix:{self.folder}/management"

    @property
    def metrics(self) -> str:
        """Where TorchServe's figures are."""
        return f"unix:{self.folder}/metrics"

    def settings(self) -> dict[str, str]:
        """These sockets as lines of `config.properties`."""
        return {
            "inference_address": self.inference,
            "management_address": self.management,
            "metrics_address": self.metrics,
            "grpc_inference_address": "127.0.0.1",
            "grpc_inference_port": "0",
            "grpc_management_address": "127.0.0.1",
            "grpc_management_port": "0",
            "disable_token_authorization": "false",
            # By default its keys hold for an hour, and it makes no new ones by itself.
            "token_expiration_min": str(_CENTURY_MINUTES),
        }

    @property
    def in_use(self) -> bool:
        """Whether a TorchServe runs there."""
        try:
            handle = _opened(self.folder)
        except OSError:
            return False
        try:
            return not _locked(handle, fcntl.LOCK_SH)
        finally:
            os.close(handle)

    def claim(self) -> int:
        """Make the folder, empty, and hold it.

        Returns:
            a file descriptor; the folder is in use until all of its copies are closed.

        Raises:
            ServiceError: it is in use, or not ours alone.
        """
        while True:
            try:
                with contextlib.suppress(FileExistsError):
                    self.folder.mkdir(mode=0o700)
                handle = _opened(self.folder)
            except FileNotFoundError:
                continue  # who ended just now has taken it away
            except OSError as error:
                raise ServiceError(f"{self.folder} cannot be used: {error.strerror}") from None
            try:
                if self._take(handle):
                    return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def _take(self, handle: int) -> bool:
        """Lock and empty the opened folder; false where it is not the folder any more."""
        if not _locked(handle, fcntl.LOCK_EX):
            raise ServiceError("a ddpm serve with the same --config runs already")
        found = os.fstat(handle)
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != 0o700:
            raise ServiceError(f"{self.folder} is not this user's alone: remove it")
        if not self.folder.exists() or not os.path.samestat(found, self.folder.lstat()):
            return False
        for left in self.folder.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()
        return True


def _opened(folder: Path) -> int:
    # A link that somebody put there is not followed.
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _locked(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
