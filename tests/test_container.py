"""What the container image promises, read in its Dockerfile; `make image-test` tries the built one."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib.metadata import version
from inspect import signature
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ddpm_service.cli.serve import serve
from ddpm_service.torchserve import desired
from ddpm_service.torchserve.server import read_properties

ROOT = Path(__file__).parents[1]


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile and its arguments, in order, continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", "")
    pairs = (line.split(maxsplit=1) for line in joined.splitlines() if line.strip())
    return [(word, rest) for word, rest in pairs]


def given(word: str) -> list[str]:
    return [rest for each, rest in instructions() if each == word]


def last_stage() -> list[tuple[str, str]]:
    everything = instructions()
    return everything[max(i for i, (word, _) in enumerate(everything) if word == "FROM") :]


def command_with(part: str) -> str:
    """The one RUN that has this part, without its mounts."""
    (found,) = (rest for rest in given("RUN") if part in rest)
    return re.sub(r"^(--mount=\S+\s+)+", "", found)


def shell(command: str, **environment: str) -> list[str]:
    """What a shell makes of a command, where pip only says what it was told."""
    told = "pip() { printf '%s\\n' \"$@\"; }; " + command
    done = subprocess.run(["sh", "-c", told], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def container_says(*arguments: str, **environment: str) -> tuple[int, str]:
    """The exit status and the words of the container's own command, with arguments, run here."""
    tini, _, program, *words = json.loads(dict(last_stage())["ENTRYPOINT"])  # a shell would not pass signals on
    assert tini.endswith("/tini")
    kept = {key: value for key, value in os.environ.items() if key not in ("PORT", "DDPM_TOKENS")}
    command = [Path(sys.executable).with_name(program), *words, *arguments]
    done = subprocess.run(command, env=kept | environment, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_all_stages_stand_on_one_image_whose_python_runs_what_is_copied() -> None:
    names = {}
    for source in given("FROM"):
        image, *alias = source.split(" AS ")
        root = names.get(image, image)
        names.update(dict.fromkeys(alias, root))
        assert root == given("FROM")[0].split(" AS ")[0]


def test_it_never_runs_as_root() -> None:
    words = [word for word, _ in last_stage()]
    user, _, group = dict(last_stage())["USER"].partition(":")
    assert min(int(user), int(group)) > 0  # numbers, or Kubernetes could not tell
    assert "RUN" not in words[words.index("USER") :]


def test_it_tells_the_ports_of_ddpm_serve_and_torchserve_stays_on_loopback() -> None:
    own = {signature(serve).parameters[name].default for name in ("port", "grpc_port", "metrics_port")}
    assert {int(port) for port in dict(last_stage())["EXPOSE"].split()} == own
    addresses = [value for key, value in read_properties(ROOT / "config.properties").items() if "address" in key]
    assert addresses
    assert all(re.fullmatch(r"(http://)?127\.0\.0\.1(:\d+)?", address) for address in addresses)


def test_home_is_the_one_place_that_may_be_written() -> None:
    environment = dict(pair.split("=", 1) for pair in " ".join(rest for _, rest in last_stage()).split() if "=" in pair)
    assert environment["HOME"] == "/tmp"
    assert not given("VOLUME")


def test_a_driver_is_found_where_clusters_mount_it_and_gpu_memory_grows_in_segments() -> None:
    environment = dict(pair.split("=", 1) for pair in " ".join(rest for _, rest in last_stage()).split() if "=" in pair)
    assert environment["PATH"].split(":")[:2] == ["/opt/ddpm/bin", "/usr/local/nvidia/bin"]
    assert environment["LD_LIBRARY_PATH"] == "/usr/local/nvidia/lib64"
    assert environment["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert set(environment["NVIDIA_DRIVER_CAPABILITIES"].split(",")) == {"compute", "utility"}  # CUDA, nvidia-smi


def test_the_image_for_training_alone_has_a_compiler() -> None:
    command = "rm() { :; }; " + command_with("python3-dev").replace("apt-get", "echo")
    assert {"g++", "python3-dev"} <= set(shell(command, EXTRA="train"))
    assert shell(command, EXTRA="") == []


def test_no_secret_is_named_but_those_lent_to_a_step() -> None:
    named = " ".join(given("ARG") + given("ENV") + given("COPY") + given("ADD"))
    assert not re.search(r"token|secret|passw|key|pip\.conf", named, re.IGNORECASE)


def listed(name: str) -> dict[str, str]:
    """What a list of packages pins, each with its hashes."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if not line.startswith("--find-links")]
    assert all(re.fullmatch(r"[\w.-]+==\S+(\s+--hash=sha256:[0-9a-f]{64})+", line.strip()) for line in lines)
    return {name: version for name, _, version in (line.split()[0].partition("==") for line in lines)}


@pytest.mark.parametrize("torch", ["cpu", "cuda"])
@pytest.mark.parametrize("extra", ["", "train"])
def test_packages_are_those_of_the_lists_by_their_hashes(torch: str, extra: str) -> None:
    said = shell(command_with("requirements/"), TORCH=torch, EXTRA=extra)
    lists = [f"requirements/{name}.txt" for name in (torch, extra) if name]
    assert [word for word in said if word.endswith(".txt")] == lists
    assert "--require-hashes" in said
    assert {"TORCH=cpu", "EXTRA="} <= {*given("ARG")}
    assert all((ROOT / file).exists() for file in lists)


def test_the_lists_hold_all_that_is_needed_in_the_versions_that_the_tests_run_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for names, lists in (
        ([], ("cpu",)),
        ([], ("cuda",)),
        (["train"], ("cpu", "train")),
        (["train"], ("cuda", "train")),
    ):
        pinned = {name: version for each in lists for name, version in listed(each).items()}
        wanted = sum((project["optional-dependencies"][name] for name in names), project["dependencies"])
        for requirement in map(Requirement, wanted):
            name = canonicalize_name(requirement.name)
            assert requirement.specifier.contains(pinned[name].partition("+")[0])
            assert version(name).partition("+")[0] == pinned[name].partition("+")[0], f"make lock: {name}"


def test_only_the_build_of_torch_and_what_it_brings_differ_between_cpu_and_cuda() -> None:
    cpu, cuda = listed("cpu"), listed("cuda")
    assert cpu["torch"] == f"{cuda['torch']}+cpu"
    more = {name for name in cuda if name not in cpu}
    assert all(name.startswith(("cuda-", "nvidia-", "triton")) for name in more)
    assert {name for name in cpu if cpu[name] != cuda[name]} == {"torch"}


def test_nothing_is_installed_that_is_not_named_by_a_hash() -> None:
    installs = [part for rest in given("RUN") for part in rest.split("&&") if "pip install" in part]
    assert installs
    assert all("--require-hashes" in part or "--no-index" in part for part in installs)
    assert re.fullmatch(r"BASE=\S+@sha256:[0-9a-f]{64}", given("ARG")[0])
    assert given("FROM")[0] == "${BASE} AS base"


def test_the_builder_is_sent_what_is_copied_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    assert rules[0] == "*"
    sources = {
        source for rest in given("COPY") if not rest.startswith("--from") for source in rest.split()[:-1] if source
    }
    assert all(any(fnmatch(rule, source) or rule.startswith(f"{source}/") for rule in allowed) for source in sources)
    assert {rule.split("/")[0] for rule in allowed} == sources
    assert all((ROOT / rule).exists() for rule in allowed)


def test_what_torchserves_settings_name_lies_beside_them() -> None:
    properties = read_properties(ROOT / "config.properties")
    named = {properties["metrics_config"], properties["vmargs"].rpartition("=")[2]}
    copied = re.search(r"cp (.+?) /app/handlers/", command_with("ddpm pack"))
    assert copied is not None
    assert set(copied[1].split()) == named


def test_what_models_yaml_names_is_packed() -> None:
    bundles = [json.loads(file.read_text()) for file in ROOT.glob("models/faces-64/*/bundle.json")]
    packed = {f"{bundle['name']}_{bundle['version']}.mar" for bundle in bundles}
    models = desired.load(ROOT / "models.yaml").models
    assert {version.archive for version in models["faces-64"].versions.values()} <= packed


def test_without_tokens_it_does_not_start_and_says_what_to_do_in_one_line() -> None:
    status, said = container_says()
    (line,) = said.splitlines()
    assert (status, "DDPM_TOKENS" in line, "--insecure" in line) == (1, True, True)


def test_a_secret_that_is_not_mounted_is_named_in_one_line(tmp_path: Path) -> None:
    status, said = container_says(DDPM_TOKENS=str(tmp_path / "tokens"))
    (line,) = said.splitlines()
    assert (status, str(tmp_path / "tokens") in line) == (1, True)


def test_the_port_comes_from_the_environment() -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = container_says("--insecure", PORT=str(port))
    (line,) = said.splitlines()[-1:]
    assert (status, f"port {port}" in line) == (1, True)


def test_a_port_that_is_none_is_wrong_usage() -> None:
    status, said = container_says(PORT="http")
    assert (status, "'PORT'" in said) == (2, True)


def test_the_engine_that_runs_builds_and_a_dead_one_does_not(tmp_path: Path) -> None:
    for name, line in (("docker", "exit 1"), ("podman", 'test "$1" = info || echo podman "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    settings = {"PATH": f"{tmp_path}:/usr/bin:/bin", "IMAGE": "faces:1", "PIP_CONF": "/mine/pip.conf"}
    command = [ROOT / "scripts" / "image.sh", "build", "--build-arg", "TORCH=cuda"]
    done = subprocess.run(command, env=settings, capture_output=True, text=True)
    words = done.stdout.split()
    assert words[:2] == ["podman", "build"]
    assert {"faces:1", "id=pip_conf,src=/mine/pip.conf", "TORCH=cuda"} <= set(words)
