"""Run the built image as a cluster would, ask it for faces, and stop it while it works.

    image_test.py docker|podman IMAGE
    image_test.py bwrap ROOT        IMAGE_CONFIG holds what buildah inspect says; as root

Uid 10001, read-only root, no capability, /tmp alone may be written. Exits with 1 and the first promise that is broken.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import requests
import skimage.data
from PIL import Image

from ddpm_api import EndEvent, ImageEvent, ProgressEvent
from ddpm_service.client import Client

UID = 10001
HTTP, GRPC, METRICS = 8010, 8001, 8002  # HTTP is not the default one: $PORT is obeyed
TOKEN = "tried-by-image-test"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
TOKENS = "/mnt/tokens"
MODEL = "faces-64"
LONG: dict[str, Any] = {"num_images": 4, "num_inference_steps": 250, "seed": 1}
LARGEST = 2.5e9
STARTUP_SECONDS = 300
PROTO = Path(__file__).parents[1] / "tests" / "e2e"


@dataclass
class Docker:
    """The image under docker or podman."""

    command: str
    image: str
    name: str = field(default_factory=lambda: f"image-test-{os.getpid()}")

    def run(self, tokens: Path | None, *, replaced: tuple[str, ...] = ()) -> list[str]:
        """Give the command that runs the image, or another program in it."""
        line = [self.command, "run", "--rm", "--name", self.name, "--read-only", "--tmpfs", "/tmp:rw,exec,mode=1777"]
        line += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--env", f"PORT={HTTP}"]
        for port in (HTTP, GRPC, METRICS):
            line += ["--publish", f"127.0.0.1:{port}:{port}"]
        if tokens is not None:
            line += ["--env", f"DDPM_TOKENS={TOKENS}", "--volume", f"{tokens}:{TOKENS}:ro"]
        if replaced:
            line += ["--entrypoint", replaced[0]]
        return [*line, self.image, *replaced[1:]]

    def first_process(self, started: psutil.Process) -> psutil.Process:
        """Process 1 of the container, as this machine sees it."""
        del started
        command = [self.command, "inspect", "--format", "{{.State.Pid}}", self.name]
        return psutil.Process(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


@dataclass
class Bwrap:
    """The image's mounted files in namespaces of their own; its configuration is obeyed as an engine would."""

    root: str
    config: dict[str, Any]

    def run(self, tokens: Path | None, *, replaced: tuple[str, ...] = ()) -> list[str]:
        """Give the command that runs the image, or another program in it."""
        environment = dict(entry.split("=", 1) for entry in self.config["Env"]) | {"PORT": str(HTTP)}
        line = ["bwrap", "--ro-bind", self.root, "/", "--perms", "1777", "--tmpfs", "/tmp", "--proc", "/proc"]
        line += ["--dev", "/dev", "--unshare-pid", "--unshare-ipc", "--as-pid-1", "--die-with-parent", "--clearenv"]
        line += ["--chdir", self.config["WorkingDir"]]
        if tokens is not None:
            environment["DDPM_TOKENS"] = TOKENS
            line += ["--ro-bind", str(tokens.parent), str(Path(TOKENS).parent)]
        for key, value in environment.items():
            line += ["--setenv", key, value]
        # A true change of user, not a mapped one: what only root may read stays closed.
        user, group = self.config["User"].split(":")
        line += ["setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--bounding-set=-all"]
        return [*line, "--inh-caps=-all", "--no-new-privs", *(replaced or self.config["Entrypoint"])]

    def first_process(self, started: psutil.Process) -> psutil.Process:
        """Process 1 of the container, as this machine sees it."""
        return started.children()[0]


Engine = Docker | Bwrap


def main() -> None:
    """Try everything; print what was seen."""
    kind, image = sys.argv[1:]
    engine: Engine
    if kind == "bwrap":
        engine = Bwrap(image, json.loads(os.environ["IMAGE_CONFIG"])["OCIv1"]["config"])
    else:
        engine = Docker(kind, image)
    size = 1024 * int(_output(engine, "du", "-xsk", "--exclude=/proc", "--exclude=/sys", "/").split()[0])
    check(size <= LARGEST, f"unpacked {size / 1e9:.2f} GB, at most {LARGEST / 1e9} GB")
    refused = subprocess.run(engine.run(None), capture_output=True, text=True, timeout=60)
    said = refused.stderr.strip()
    check(refused.returncode == 1 and "needs API tokens" in said and "\n" not in said, f"without tokens: {said}")
    with tempfile.TemporaryDirectory() as folder, running(engine, Path(folder)) as (started, first):
        isolation(first)
        try_faces()
        processes = [first, *first.children(recursive=True)]
        stop_at_work(started, first)
        left = [process for process in processes if process.is_running()]
        check(not left, f"no process is left of {len(processes)}")


@contextlib.contextmanager
def running(engine: Engine, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], psutil.Process]]:
    """Start the image and wait until it is ready; whatever happens, it is gone afterwards."""
    folder.chmod(0o755)
    (folder / "tokens").write_text(f"image-test {TOKEN}\n")
    (folder / "tokens").chmod(0o644)
    began = time.monotonic()
    started = subprocess.Popen(engine.run(folder / "tokens"))
    try:
        while not _ready():
            check(started.poll() is None, "it lives while it starts", quiet=True)
            check(time.monotonic() - began < STARTUP_SECONDS, "it becomes ready", quiet=True)
            time.sleep(0.1)
        check(True, f"ready after {time.monotonic() - began:.1f} s")
        yield started, engine.first_process(psutil.Process(started.pid))
    finally:
        if started.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                engine.first_process(psutil.Process(started.pid)).kill()
            started.wait(30)


def isolation(first: psutil.Process) -> None:
    """What the kernel says of the container's first process."""
    proc = Path("/proc", str(first.pid))
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    check(set(status["Uid"].split()) == {str(UID)}, f"uid {UID}")
    check(int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, "no capability")
    check(status["NSpid"].split()[-1] == "1" and first.name() == "tini", "process 1 is tini")
    mounts = [line.split() for line in (proc / "mounts").read_text().splitlines()]
    writable = {where for _, where, kind, options, *_ in mounts if "rw" in options.split(",") and _is_disk(where, kind)}
    check(writable == {"/tmp"}, f"writable: {', '.join(writable)}")
    for port, address in _listening(proc):
        check(_is_loopback(address) or port in (HTTP, GRPC, METRICS), f"port {port} is on loopback", quiet=True)
    check(True, f"reached from outside: {HTTP}, {GRPC}, {METRICS} alone")


def try_faces() -> None:
    """Five faces over REST and over gRPC; the same seed gives the same ones."""
    buffer = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(buffer, "JPEG")
    selfie = buffer.getvalue()
    began = time.monotonic()
    with Client(f"http://127.0.0.1:{HTTP}", TOKEN) as client:
        rest = [face.data for face in client.generate(selfie, model=MODEL, seed=7).images]
    check(len(rest) == 5 and all(_is_face(face) for face in rest), f"REST: 5 faces in {time.monotonic() - began:.1f} s")
    began = time.monotonic()
    over_grpc = _ask_grpc({"image": selfie, "seed": b"7"})
    check(len(over_grpc) == 5, f"gRPC: 5 faces in {time.monotonic() - began:.1f} s")
    check(over_grpc == rest, "both gave the same pictures")


def stop_at_work(started: subprocess.Popen[bytes], first: psutil.Process) -> None:
    """SIGTERM while a request runs: it finishes, a new one is refused, the exit code is 0."""
    with Client(f"http://127.0.0.1:{HTTP}", TOKEN) as client:
        events = client.stream(None, model=MODEL, **LONG)
        under_way = next(event for event in events if isinstance(event, ProgressEvent))
        first.terminate()
        told = time.monotonic()
        check(under_way.step < under_way.total_steps, f"SIGTERM at step {under_way.step} of {under_way.total_steps}")
        _wait_until(lambda: not _ready())
        # Not by the client: that waits and asks again.
        late = requests.post(f"http://127.0.0.1:{HTTP}/predictions/{MODEL}", json={}, headers=AUTHORIZED, timeout=10)
        check(late.status_code == 503, f"a new request meanwhile: {late.status_code}, {late.text}")
        rest = list(events)
    made = sum(isinstance(event, ImageEvent) for event in rest)
    check(made == LONG["num_images"] and isinstance(rest[-1], EndEvent), f"the running request made its {made} images")
    check(started.wait(60) == 0, f"exit code {started.returncode}, {time.monotonic() - told:.1f} s after SIGTERM")


def check(holds: bool, what: str, *, quiet: bool = False) -> None:
    """Say what was seen; end with 1 where a promise is broken."""
    if not holds:
        sys.exit(f"BROKEN  {what}")
    if not quiet:
        print(f"ok      {what}", flush=True)


def _output(engine: Engine, *command: str) -> str:
    return subprocess.run(engine.run(None, replaced=command), capture_output=True, text=True, check=False).stdout


def _ready() -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{HTTP}/readyz", timeout=5).ok
    except requests.RequestException:
        return False


def _wait_until(true: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)


def _is_face(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as picture:
        extremes = picture.convert("L").getextrema()
        return picture.format == "PNG" and picture.size == (64, 64) and extremes[0] != extremes[1]


def _ask_grpc(fields: dict[str, bytes]) -> list[bytes]:
    sys.path.insert(0, str(PROTO))
    messages, services = grpc.protos_and_services("inference.proto")
    with grpc.insecure_channel(f"127.0.0.1:{GRPC}") as channel:
        asked = messages.PredictionsRequest(model_name=MODEL, input=fields)
        stub = services.InferenceAPIsServiceStub(channel)
        answer = stub.Predictions(asked, timeout=120, metadata=[("authorization", f"Bearer {TOKEN}")])
    return [base64.b64decode(image["b64_json"]) for image in json.loads(answer.prediction)["images"]]


def _is_disk(where: str, kind: str) -> bool:
    return kind not in ("proc", "sysfs", "devpts", "mqueue", "cgroup2") and not where.startswith(("/dev", "/proc"))


def _listening(proc: Path) -> Iterator[tuple[int, str]]:
    """Port and address, in the kernel's hexadecimal digits, of every socket that listens."""
    for table in ("tcp", "tcp6"):
        for line in (proc / "net" / table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A":
                address, port = local.split(":")
                yield int(port, 16), address


def _is_loopback(address: str) -> bool:
    # 127.x.y.z, little-endian; as IPv6, mapped or ::1
    return address.endswith("7F") or address == "00000000000000000000000001000000"


if __name__ == "__main__":
    main()
