#!/usr/bin/env python3
"""Gather what scripts/gpu_check.py imports, for a machine with a GPU, PyTorch and no network.

Such machines have PyTorch, numpy, OpenCV and the like; what they lack is laid into a folder: wheels for their Python,
and TorchServe's Python files without its Java. There:

    python3 -m pip install -q --no-index --no-deps --target /tmp/site .gpu-packages/*.whl
    PYTHONPATH=/tmp/site:.gpu-packages python3 scripts/gpu_check.py
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import ts

NAMES = (
    "annotated-types",
    "diffusers",
    "importlib_metadata",
    "pillow-heif",
    "pydantic",
    "pydantic-core",
    "simplejpeg",
    "typing-inspection",
)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def main() -> None:
    """Fill the folder anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(".gpu-packages"), help="the folder")
    parser.add_argument("--python", default="3.12", help="the Python of that machine")
    arguments = parser.parse_args()

    shutil.rmtree(arguments.out, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--dest", arguments.out, "--implementation", "cp", "--python-version", arguments.python]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    subprocess.run([*command, *(f"{name}=={metadata.version(name)}" for name in NAMES)], check=True)
    leave = shutil.ignore_patterns("frontend", "__pycache__", "*.jar")
    shutil.copytree(Path(ts.__file__).parent, arguments.out / "ts", ignore=leave)
    size = sum(file.stat().st_size for file in arguments.out.rglob("*") if file.is_file())
    print(f"{arguments.out}: {size / 2**20:.0f} MiB for Python {arguments.python}")


if __name__ == "__main__":
    main()
