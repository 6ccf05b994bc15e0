"""A bundle becomes a self-contained `.mar`: weights, handler, and the code that serving needs.

An archive's root: `ddpm_entry.py`, the packages `handlers`, `ddpm_core` and `ddpm_api`, `bundle/`, `offers.json`,
`model-config.yaml` and `requirements.txt`. The code is copied as source; nothing of it is imported here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ddpm_service.errors import ServiceError

BUNDLE = "bundle"
_OFFERS = "offers.json"
_PACKAGES = ("handlers", "ddpm_core", "ddpm_api")
# Rooms that a worker never needs.
_NOT_SERVED = (
    "ddpm_core/training",
    "ddpm_core/evaluation",
    "ddpm_core/data",
    "ddpm_core/importers",
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
# No time of day is in an archive, so the same bundle and code make the same bytes.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_CREATED_ON = "01/01/1980 00:00:00"
# What an archive from elsewhere may hold, as any zip may that is read here (`ddpm_core/data/bounds.py`).
MAX_BYTES = 64 * 2**20  # of what is read of it here
MAX_MEMBERS = 5_000_000
MAX_RATIO = 100


class ArchiveError(ServiceError):
    """A bundle that cannot be packed, or a file that is not an archive of ours."""


def pack(bundle: Path, model_store: Path, *, replace: bool = False, offers: Mapping[str, Any] | None = None) -> Path:
    """Build the archive of `bundle` in `model_store` and return its path.

    The file is `{name}_{version}.mar`, named by `bundle.json`; one of that name is replaced at once if it
    holds the same model, else only when told. The same bundle and code give the same bytes.

    Args:
        bundle: a model on disk in diffusers layout with its `bundle.json`.
        model_store: where archives lie; made if it is missing. Nobody else may pack the same version meanwhile.
        replace: take the place of an archive with another model in it.
        offers: what its code makes of the bundle, told by `/v1/models` beside what the bundle says.

    Raises:
        ArchiveError: the bundle is incomplete, its name or version is unusable, another model has its archive there,
            or the archiver failed.
    """
    target = archive_of(bundle, model_store)
    if not replace and target.exists() and read_manifest(target) != _read_bundle(bundle):
        raise ArchiveError(
            f"{target} holds another model with this name and version; --replace puts {bundle} in its place, and "
            "`ddpm export --version` makes one of another version"
        )
    name, version = target.stem.rsplit("_", 1)
    model_store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ddpm-pack-") as scratch:
        root = Path(scratch) / "root"
        # --extra-files flattens what it is given by one level: `root` vanishes, its children keep their names.
        shutil.copytree(bundle, root / BUNDLE, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        _copy_code(root)
        (root / _OFFERS).write_text(json.dumps(offers or {}))
        unpacked = _run_archiver(Path(scratch), root, name, version)
        draft = target.with_suffix(".mar.part")
        _zip(unpacked, draft)
        draft.replace(target)
    return target


def archive_of(bundle: Path, model_store: Path) -> Path:
    """Where the archive of a bundle lies.

    Raises:
        ArchiveError: the bundle is incomplete, or its name or version is unusable.
    """
    description = _read_bundle(bundle)
    return model_store / f"{description['name']}_{description['version']}.mar"


def read_manifest(archive: Path) -> dict[str, Any]:
    """Return the `bundle.json` of an archive; nothing is unpacked and torch is not needed.

    Raises:
        ArchiveError: the file is missing, not a zip, unpacks to very much, or carries no `bundle.json`.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            _check_bounds(file, archive.stat().st_size)
            with file.open(f"{BUNDLE}/bundle.json") as member:
                description = json.loads(member.read(MAX_BYTES))
    except FileNotFoundError:
        raise ArchiveError(f"{archive} does not exist") from None
    except Exception as error:  # of a damaged or encrypted member each decompressor says it in its own way
        raise ArchiveError(f"{archive} is not an archive made by `ddpm pack`: {error}") from error
    return _checked(description, f"{archive}: {BUNDLE}/bundle.json")


def read_offers(archive: Path) -> dict[str, Any]:
    """Return what an archive's code makes of its bundle; nothing of one that was packed before it was told."""
    try:
        with zipfile.ZipFile(archive) as file, file.open(_OFFERS) as member:
            offers = json.loads(member.read(MAX_BYTES))
    except Exception:  # what is damaged fails in many ways, and is served all the same
        return {}
    return offers if isinstance(offers, dict) else {}


def unpacked_manifest(worker: int) -> dict[str, Any] | None:
    """Return the `bundle.json` that a worker process was loaded from; None where this machine or user cannot see it."""
    try:
        described = json.loads(Path(f"/proc/{worker}/cwd/{BUNDLE}/bundle.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return described if isinstance(described, dict) else None


def _check_bounds(file: zipfile.ZipFile, size: int) -> None:
    """Refuse an archive of so many bytes that unpacks to very much, as TorchServe does without looking."""
    members = file.infolist()
    if len(members) > MAX_MEMBERS or sum(member.compress_size for member in members) > size:
        raise ArchiveError("it has more members than there can be")
    if sum(member.file_size for member in members) > max(MAX_BYTES, MAX_RATIO * size):
        raise ArchiveError(f"it unpacks to more than {MAX_RATIO} times its size")


def _read_bundle(bundle: Path) -> dict[str, Any]:
    for part in ("bundle.json", "unet", "scheduler"):
        if not (bundle / part).exists():
            raise ArchiveError(f"{bundle} is not a bundle: it has no {part}")
    try:
        description = json.loads((bundle / "bundle.json").read_text())
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{bundle / 'bundle.json'} is not JSON: {error}") from error
    return _checked(description, str(bundle / "bundle.json"))


def _checked(description: Any, where: str) -> dict[str, Any]:
    """Return `description` if its name and version can stand in a URL and a file name, as TorchServe demands."""
    if not isinstance(description, dict):
        raise ArchiveError(f"{where} must be a JSON object")
    for key in ("name", "version"):
        value = description.get(key)
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise ArchiveError(f"{where}: {key} must be letters, digits, '.', '_' and '-', not {value!r}")
    return description


def _copy_code(root: Path) -> None:
    for package in _PACKAGES:
        source = _source(package)
        unserved = {source / Path(part).relative_to(package) for part in _NOT_SERVED if part.startswith(f"{package}/")}

        def ignore(folder: str, names: list[str], unserved: set[Path] = unserved) -> set[str]:
            return {
                name
                for name in names
                if name == "__pycache__" or name.startswith(".") or Path(folder) / name in unserved
            }

        shutil.copytree(source, root / package, ignore=ignore)


def _source(package: str) -> Path:
    """Where a package lies, found without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ArchiveError(f"the package {package} is not installed here, so it cannot go into an archive")
    return Path(next(iter(spec.submodule_search_locations)))


def _run_archiver(scratch: Path, root: Path, name: str, version: str) -> Path:
    """Have torch-model-archiver lay out the archive as a folder; return the folder."""
    (scratch / "out").mkdir()
    # The archiver deletes TMPDIR/<model name>, whatever that is. So it gets a TMPDIR of its own.
    (scratch / "tmp").mkdir()
    inputs = scratch / "inputs"
    inputs.mkdir()
    for file in ("ddpm_entry.py", "model-config.yaml", "requirements.txt"):
        shutil.move(root / "handlers" / file, inputs / file)
    command = [sys.executable, "-m", "model_archiver.model_packaging", "--archive-format", "no-archive"]
    command += ["--model-name", name, "--version", version, "--export-path", str(scratch / "out")]
    command += ["--handler", str(inputs / "ddpm_entry.py"), "--config-file", str(inputs / "model-config.yaml")]
    command += ["--requirements-file", str(inputs / "requirements.txt"), "--extra-files", str(root)]
    environment = os.environ | {"TMPDIR": str(scratch / "tmp")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=scratch)
    if done.returncode != 0:
        raise ArchiveError(
            f"torch-model-archiver failed: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}"
        )
    return scratch / "out" / name


def _zip(folder: Path, target: Path) -> None:
    manifest = folder / "MAR-INF" / "MANIFEST.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"createdOn": _CREATED_ON}, indent=2))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), _ZIP_TIME)
            entry.external_attr = 0o644 << 16
            # Weights hardly shrink, and are most of it.
            entry.compress_type = zipfile.ZIP_STORED if file.suffix == ".safetensors" else zipfile.ZIP_DEFLATED
            archive.writestr(entry, file.read_bytes())
