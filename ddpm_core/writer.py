"""One writer at a time: a lock that dies with its process, and who holds it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ddpm_core.errors import InvalidInput

_LOCKS = Path("/proc/locks")


@contextmanager
def only_writer(path: Path, field: str = "out") -> Iterator[None]:
    """Be the only process that writes a folder, or a file or folder that is to be made in one step.

    A folder that is there is locked itself; for all else a hidden file lies beside it meanwhile. File systems that know
    no locks, as some of the network, let everybody in.

    Raises:
        InvalidInput: held, with this `field`: somebody else writes it, and who.
        OSError: it cannot be opened or made.
    """
    own = path.resolve()
    is_folder = own.is_dir()
    place = own if is_folder else _beside(own)
    how = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    while True:
        try:
            handle = os.open(place, how, 0o644)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None  # of the lock nobody has heard
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = holder(handle)
            os.close(handle)
            message = f"{path} is being written by {who}. Wait for its end, or stop it."
            raise InvalidInput("held", message, field=field, given=str(path)) from None
        except OSError:
            break
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), place.stat()):
                break
        os.close(handle)  # its holder has just taken it away
    try:
        yield
    finally:
        if not is_folder:
            place.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def only_writer_of_folder(folder: Path, field: str = "out") -> Iterator[None]:
    """Make a folder where there is none, and be its only writer; where nothing was written it goes again.

    Raises:
        InvalidInput, OSError: as for `only_writer`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with only_writer(folder, field):
        try:
            yield
        finally:
            with suppress(OSError):  # there is something in it
                folder.rmdir()


def holder(handle: int) -> str:
    """Say which process holds the lock of an open file or folder, as far as this machine knows."""
    inode = str(os.fstat(handle).st_ino)
    with suppress(OSError):
        for line in _LOCKS.read_text().splitlines():
            words = line.split()
            if "FLOCK" in words and "->" not in words and words[-3].rpartition(":")[2] == inode:
                return _described(int(words[-4]))
    return "another process, perhaps of another machine"


def _described(pid: int) -> str:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
        names = [Path(word).name if i < 2 else word for i, word in enumerate(words) if word]
        return f"process {pid} ({' '.join(names)[:100]})"
    return f"process {pid}"


def _beside(path: Path) -> Path:
    """A hidden file in the nearest folder that is there, named by what is to be written."""
    home = next(parent for parent in path.parents if parent.is_dir())
    return home / f".{'-'.join(path.relative_to(home).parts)}.lock"
