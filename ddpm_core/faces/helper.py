"""A process that decodes uploads for another one: it may die of one, and takes nothing with it.

`serve` is run by `pool.Pool` in a process of its own, which loads the decoders and the face finder once and then is
copied (forked) for every helper that is asked for. Nothing here imports torch.

A helper limits itself before it looks at a picture, by clocks and limits of the kernel: processor time, time, address
space. It writes no file (a face never touches the disk) and leaves no core.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

import cv2

from ddpm_core.errors import InvalidInput
from ddpm_core.faces import wire
from ddpm_core.faces.align import align
from ddpm_core.faces.cost import too_costly
from ddpm_core.faces.decode import decode
from ddpm_core.faces.find import FaceFinder

_LONGEST_UPLOAD = 2**31 - 1


def serve(control: int, domain: str, detector: str) -> None:
    """Make a helper for every socket that comes, until nobody is left to send one.

    Args:
        control: file descriptor of a socket, over which sockets come.
        domain: of the face finder.
        detector: its YuNet file, or nothing.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who ask: without them this ends too
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a helper's end
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    cv2.setNumThreads(1)
    finder = FaceFinder(domain, Path(detector) if detector else None)
    with socket.socket(fileno=control) as asked:
        while descriptors := socket.recv_fds(asked, 1, 1)[1]:
            if os.fork():
                os.close(descriptors[0])
                continue
            asked.close()  # else the one who asks would not be missed
            _help(socket.socket(fileno=descriptors[0]), finder)


def _help(asked: socket.socket, finder: FaceFinder) -> None:
    """Answer one message after the other until there are no more; never come back."""
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # decoders print what they find odd
        os.dup2(silence, stream)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    used, niceness = _address_space(), os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(OSError, ValueError):
        asked.sendall(b"+")
        while message := wire.receive(asked, _LONGEST_UPLOAD):
            said, data = message
            _limit(said["limits"], used + len(data), niceness)
            asked.sendall(b"+")  # from here on, a death is the picture's doing
            began = time.process_time()
            answer, pixels = _answer(said, data, finder)
            wire.send(asked, answer | {"processor_seconds": time.process_time() - began}, pixels)
            signal.setitimer(signal.ITIMER_REAL, 0)
    os._exit(0)


def _answer(said: wire.Said, data: bytearray, finder: FaceFinder) -> tuple[wire.Said, bytes]:
    try:
        picture = decode(data)
        if said["side"] is None:
            about, pixels = wire.from_result(picture)
        else:
            signal.setitimer(signal.ITIMER_PROF, said["limits"]["align_seconds"])
            target = align(picture, said["side"], finder, align=said["align"], face=said["face"])
            about, pixels = wire.from_result(target)
        return {"made": about}, pixels
    except InvalidInput as refusal:
        return {"refused": wire.from_refusal(refusal)}, b""
    except MemoryError:
        return {"refused": wire.from_refusal(too_costly("takes more memory than its size explains"))}, b""
    except Exception as problem:
        # The kind and the place, not the words: they may quote a picture.
        place = traceback.extract_tb(problem.__traceback__)[-1]
        return {"failed": f"{type(problem).__name__} in {place.name}:{place.lineno}"}, b""


def _limit(limits: wire.Said, used: int, niceness: int) -> None:
    """Let the kernel end this process where a picture takes too much, and put it behind those who make faces."""
    signal.setitimer(signal.ITIMER_PROF, limits["decode_seconds"])
    signal.setitimer(signal.ITIMER_REAL, limits["seconds"])
    with suppress(ValueError):  # a container's own limit is lower
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (used + limits["memory"], hard))
    if (wanted := niceness + limits["nice"]) > os.getpriority(os.PRIO_PROCESS, 0):  # nobody may go back
        os.setpriority(os.PRIO_PROCESS, 0, wanted)


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 2**20
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2], sys.argv[3])
