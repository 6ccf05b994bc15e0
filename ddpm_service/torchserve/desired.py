"""models.yaml: which versions of which models are to be served. A file of ours, because TorchServe forgets.

models:
  faces-64:
    default: "2.1"
    versions:
      "2.1": faces-64_2.1.mar
      "0.2": {archive: faces-64_0.2.mar, workers: 0}      # registered, but not loaded
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from ddpm_service.errors import ServiceError

# What TorchServe takes in a path, and no folder.
_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")]
_Archive = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*\.mar$")]


class DesiredError(ServiceError):
    """models.yaml is wrong, or a wish contradicts it."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DesiredVersion(_Strict):
    """One version: its archive in the model store, and its workers.

    Never more than one worker: with two, TorchServe's continuous batching stalls. Scale by pods.
    """

    archive: _Archive
    workers: Annotated[int, Field(ge=0, le=1)] = 1

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"archive": value} if isinstance(value, str) else value


class DesiredModel(_Strict):
    """One model: the version that answers when none is named, and all versions."""

    default: _Name
    versions: dict[_Name, DesiredVersion]

    @model_validator(mode="after")
    def _default_is_served(self) -> Self:
        if self.default not in self.versions:
            raise ValueError(f"default is {self.default}, but versions are {', '.join(self.versions) or 'none'}")
        if self.versions[self.default].workers == 0:
            raise ValueError(f"default is {self.default}, which has no worker")
        return self


class Desired(_Strict):
    """All that is to be served; immutable, so a change is tried before it is saved.

    The methods that change return a new one and raise DesiredError.
    """

    models: dict[_Name, DesiredModel] = {}

    def with_version(self, name: str, version: str, archive: str, *, default: bool) -> Desired:
        """Add a version; the first of a model is its default anyhow."""
        first = name not in self.models
        return self._with(
            name, version if default or first else self.models[name].default, {version: {"archive": archive}}
        )

    def with_default(self, name: str, version: str) -> Desired:
        """Let another version answer when none is named."""
        self._version(name, version)
        return self._with(name, version, {})

    def with_workers(self, name: str, version: str, workers: int) -> Desired:
        """Give a version 0 or 1 workers."""
        archive = self._version(name, version).archive
        return self._with(name, self.models[name].default, {version: {"archive": archive, "workers": workers}})

    def without(self, name: str, version: str) -> Desired:
        """Remove a version; the default only as the last one, and then the model goes."""
        self._version(name, version)
        model = self.models[name]
        rest = {key: value for key, value in model.versions.items() if key != version}
        if rest and version == model.default:
            raise DesiredError(f"{version} is the default of {name}: set another default first ({', '.join(rest)})")
        models = {key: value for key, value in self.models.items() if key != name}
        return Desired(models=models | ({name: DesiredModel(default=model.default, versions=rest)} if rest else {}))

    def _with(self, name: str, default: str, versions: dict[str, Any]) -> Desired:
        """Give a model a default, and versions beside or instead of those it has."""
        models = self.model_dump()["models"]
        known = models[name]["versions"] if name in models else {}
        changed = {"default": default, "versions": known | versions}
        return _validated({"models": models | {name: changed}}, "models.yaml")

    def _version(self, name: str, version: str) -> DesiredVersion:
        if name not in self.models:
            raise DesiredError(f"there is no model {name}; models.yaml has {', '.join(self.models) or 'none'}")
        versions = self.models[name].versions
        if version not in versions:
            raise DesiredError(f"{name} has no version {version}; models.yaml has {', '.join(versions)}")
        return versions[version]


def load(file: Path) -> Desired:
    """Read models.yaml.

    Raises:
        DesiredError: it cannot be read, is not YAML, or says something that is not allowed, with the place.
    """
    return parse(read(file), file)


def read(file: Path) -> bytes:
    """Read the bytes of models.yaml.

    Raises:
        DesiredError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise DesiredError(f"{file} cannot be read: {error.strerror}") from error


def parse(text: bytes, file: Path) -> Desired:
    """Understand what `read` has read from a file.

    Raises:
        DesiredError: it is not YAML, or says something that is not allowed, with the place.
    """
    try:
        document = yaml.safe_load(text.decode())
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # also no UTF-8, no date, or too deep
        raise DesiredError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    return _validated(document, str(file))


def save(desired: Desired, file: Path) -> None:
    """Write models.yaml at once; its leading comment is kept, others are not."""
    document: dict[str, Any] = {"models": {}}
    for name, model in desired.models.items():
        versions = {
            key: {"archive": value.archive, "workers": value.workers} if value.workers != 1 else value.archive
            for key, value in model.versions.items()
        }
        document["models"][name] = {"default": model.default, "versions": versions}
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    comment = lines[: next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))]
    draft = file.with_name(file.name + ".part")
    draft.write_text("".join(comment) + yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    draft.replace(file)


@contextmanager
def applying(file: Path) -> Iterator[None]:
    """Let others know, while this is open, that this process applies a models.yaml whenever it changes."""
    # Its folder is locked: the file itself is replaced at every change, and both may be read-only.
    with _opened(file.parent) as folder:
        fcntl.flock(folder, fcntl.LOCK_SH)
        yield


def is_applied(file: Path) -> bool:
    """Whether some process applies this models.yaml whenever it changes."""
    with _opened(file.parent) as folder:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def changing(model_store: Path, taken: Callable[[int], None], *, shared: bool = False) -> Iterator[Callable[[], None]]:
    """Be the only one who changes what is served from a model store; what is yielded lets those in that share.

    Args:
        model_store: the folder of the archives, which is locked.
        taken: called with the opened folder where somebody else changes it, before that is waited for; what it raises
            leaves.
        shared: let others in that share: `ddpm serve` does, which applies what they have written.

    Raises:
        DesiredError: there is no such folder.
    """
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with _opened(model_store) as folder:
        try:
            _lock(folder, how | fcntl.LOCK_NB)
        except BlockingIOError:
            taken(folder)
            _lock(folder, how)
        yield lambda: _lock(folder, fcntl.LOCK_SH)


def is_changing(model_store: Path) -> bool:
    """Whether somebody changes what is served from a model store."""
    try:
        with _opened(model_store) as folder:
            _lock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _lock(folder: int, how: int) -> None:
    """Lock a folder where its file system can; volumes of the network often cannot."""
    try:
        fcntl.flock(folder, how)
    except BlockingIOError:
        raise
    except OSError:
        return


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise DesiredError(f"{folder} cannot be read: {error.strerror}") from error
    try:
        yield opened
    finally:
        os.close(opened)


def _validated(document: Any, where: str) -> Desired:
    try:
        return Desired.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"] if part != "[key]") or "the document"
        hint = " (write numbers in quotes)" if first["type"] == "string_type" else ""
        raise DesiredError(f"{where}: {place}: {first['msg'].removeprefix('Value error, ')}{hint}") from error
