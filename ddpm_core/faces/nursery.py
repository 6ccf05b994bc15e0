"""Where helpers come from: one process that has loaded the decoders, copied for each helper that is asked for."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from ddpm_core.faces import wire

_ROOT = Path(__file__).parents[2]
_START_SECONDS = 120.0
_GRACE_SECONDS = 5.0  # beyond a helper's own limit of time


class Dead(Exception):
    """The helper has died; `guilty` tells whether it had begun to look at the picture."""

    def __init__(self, *, guilty: bool) -> None:
        super().__init__("a helper process died")
        self.guilty = guilty


class Helper:
    """A helper process, at the other end of a socket; it ends when the socket is closed."""

    def __init__(self, asked: socket.socket) -> None:
        self._asked = asked
        self.pictures = 0

    def ask(self, said: wire.Said, data: bytes, seconds: float) -> tuple[wire.Said, bytearray]:
        """Send a picture, and wait so many seconds for what becomes of it.

        Raises:
            Dead: there is no answer.
        """
        self.pictures += 1
        begun = False
        try:
            self._asked.settimeout(seconds + _GRACE_SECONDS)
            wire.send(self._asked, said, data)
            begun = self._asked.recv(1) == b"+"
            answer = wire.receive(self._asked, wire.LONGEST) if begun else None
        except (OSError, ValueError):
            answer = None
        if answer is None:
            raise Dead(guilty=begun)
        return answer

    def close(self) -> None:
        """Let it end."""
        self._asked.close()


class Nursery:
    """The place that helpers come from; may be asked from any thread.

    Args:
        domain: of the face finder that each of them has.
        detector: its YuNet file, or None.
    """

    def __init__(self, domain: str, detector: Path | None) -> None:
        self._about = (domain, str(detector.resolve()) if detector else "")
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        atexit.register(self.close)

    def helper(self) -> Helper:
        """Start a helper; a nursery that has died is started again.

        Raises:
            RuntimeError: none can be started.
        """
        for _ in range(2):
            with self._lock:
                control = self._control or self._start()
            ours, theirs = socket.socketpair()
            ours.settimeout(_START_SECONDS)
            try:
                with theirs:
                    socket.send_fds(control, [b"?"], [theirs.fileno()])
                if ours.recv(1) == b"+":
                    return Helper(ours)
            except OSError:
                pass
            ours.close()
            with self._lock:
                if self._control is control:
                    self._stop()
        raise RuntimeError("no process can be started that decodes pictures")

    def close(self) -> None:
        """End; helpers at work come to their own end."""
        with self._lock:
            self._stop()

    def _start(self) -> socket.socket:
        self._control, theirs = socket.socketpair()
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        with theirs:
            self._process = subprocess.Popen(
                # -P: what lies in the current directory is none of ours.
                [sys.executable, "-P", "-m", "ddpm_core.faces.helper", str(theirs.fileno()), *self._about],
                env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        return self._control

    def _stop(self) -> None:
        if self._control is not None and self._process is not None:
            self._control.close()
            self._process.kill()  # it may be stuck; helpers are not hurt
            self._process.wait()
        self._control = self._process = None
