"""The process between us and TorchServe that lets nothing of it outlive us.

SIGTERM to TorchServe's Python launcher leaves its Java running, and a supervisor that is killed can stop nothing. So
the guard leads a session of its own with TorchServe in it, and stops the whole group when its lifeline (standard input)
closes, which also happens when the supervisor dies in any way; when it is told to (SIGTERM, SIGINT); or when TorchServe
ends by itself.

    python -m ddpm_service.torchserve.guard FOLDER COMMAND…

FOLDER is TorchServe's temporary folder, removed at the end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import psutil

# Seconds that TorchServe gets to end by itself; it cuts its streams at once, so it needs few.
GRACE = 5.0


def main() -> int:
    """Run the command until it or the lifeline ends; return its exit status."""
    folder, *command = sys.argv[1:]
    stop = threading.Event()
    # Handlers, not SIG_IGN: children inherit what is ignored, and could not be stopped.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_wait_for_lifeline, args=(stop,), daemon=True).start()
    while child.poll() is None and not stop.wait(0.2):
        pass
    status = child.poll()
    _end_group()
    child.wait()
    shutil.rmtree(folder, ignore_errors=True)
    return 0 if status is None else status


def _wait_for_lifeline(stop: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while os.read(sys.stdin.fileno(), 1):
            pass
    stop.set()


def _end_group() -> None:
    """Stop every other process of this session: asked first, then killed."""
    deadline = time.monotonic() + GRACE
    _signal_others(signal.SIGTERM)
    while _others() and time.monotonic() < deadline:
        time.sleep(0.05)
    while _others():
        _signal_others(signal.SIGKILL)
        time.sleep(0.05)


def _signal_others(number: signal.Signals) -> None:
    for process in _others():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def _others() -> list[int]:
    """The living processes of this session but this one, zombies aside."""
    found = []
    for process in psutil.process_iter(["pid", "status"]):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            own = process.pid == os.getpid()
            if not own and process.info["status"] != psutil.STATUS_ZOMBIE and os.getsid(process.pid) == os.getpid():
                found.append(process.pid)
    return found


if __name__ == "__main__":
    sys.exit(main())
