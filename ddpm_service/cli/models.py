"""`ddpm models …`: look at what TorchServe serves, and change models.yaml and TorchServe together."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ddpm_service.archive import read_manifest
from ddpm_service.cli.failure import told_in_a_line
from ddpm_service.errors import ServiceError
from ddpm_service.torchserve import desired
from ddpm_service.torchserve.converge import Converger
from ddpm_service.torchserve.desired import Desired
from ddpm_service.torchserve.management import Management

app = typer.Typer(no_args_is_help=True, help="List, describe, register, scale, set the default of, unregister models.")

Models = Annotated[Path, typer.Option(help="The file that says what is served.")]
Url = Annotated[str, typer.Option(help="TorchServe's management address.")]
InferenceUrl = Annotated[str, typer.Option(help="TorchServe's inference address, where a new version is tried.")]
Store = Annotated[Path, typer.Option(help="Where archives lie.")]
Name = Annotated[str, typer.Argument(help="A model's name.")]
Version = Annotated[str, typer.Argument(help="One of its versions.")]

_MODELS = Path("models.yaml")
_URL = "http://127.0.0.1:8081"
_INFERENCE_URL = "http://127.0.0.1:8080"
_STORE = Path("model_store")


@app.command("list")
def list_models(url: Url = _URL) -> None:
    """Show every model and version that TorchServe has now.

    Example: ddpm models list
    """
    with told_in_a_line("ddpm models list"):
        management = Management(url)
        table = Table("MODEL", "VERSION", "DEFAULT", "STATE", "ARCHIVE", box=None)
        for name in management.models():
            default = management.default(name)
            for served in management.describe(name):
                state = "ready" if served.ready else "not ready" if served.workers else "no worker"
                table.add_row(name, served.version, "yes" if served.version == default else "", state, served.archive)
        Console(soft_wrap=True).print(table)


@app.command()
def describe(name: Name, url: Url = _URL) -> None:
    """Print all versions of a model as JSON: archive, workers, state.

    Example: ddpm models describe faces-64
    """
    with told_in_a_line("ddpm models describe"):
        served = Management(url).describe(name)
        if not served:
            raise ServiceError(f"TorchServe has no model {name}")
        typer.echo(json.dumps([asdict(version) for version in served], indent=2))


@app.command()
def register(
    archive: Annotated[str, typer.Argument(help="A file of the model store; it names its model and version.")],
    default: Annotated[bool, typer.Option("--default", help="Let it answer when no version is named.")] = False,
    models: Models = _MODELS,
    url: Url = _URL,
    inference_url: InferenceUrl = _INFERENCE_URL,
    model_store: Store = _STORE,
) -> None:
    """Add a version: it is loaded and makes an image before it is written into models.yaml.

    Example: ddpm models register faces-64_0.2.mar --default
    """

    def change(wanted: Desired) -> Desired:
        manifest = read_manifest(model_store / archive)
        return wanted.with_version(manifest["name"], manifest["version"], archive, default=default)

    _change("ddpm models register", change, models, url, inference_url, model_store)


@app.command()
def scale(
    name: Name,
    version: Version,
    workers: Annotated[int, typer.Argument(help="1 loads it, 0 unloads it. For more, run more pods.", min=0, max=1)],
    models: Models = _MODELS,
    url: Url = _URL,
    inference_url: InferenceUrl = _INFERENCE_URL,
    model_store: Store = _STORE,
) -> None:
    """Load or unload a version; unloading frees its memory and cuts its running streams.

    Example: ddpm models scale faces-64 0.1 0
    """
    _change(
        "ddpm models scale",
        lambda wanted: wanted.with_workers(name, version, workers),
        models,
        url,
        inference_url,
        model_store,
    )


@app.command("set-default")
def set_default(
    name: Name,
    version: Version,
    models: Models = _MODELS,
    url: Url = _URL,
    inference_url: InferenceUrl = _INFERENCE_URL,
    model_store: Store = _STORE,
) -> None:
    """Let a version answer when none is named, also after a restart. This is how to roll back.

    Example: ddpm models set-default faces-64 0.1
    """
    _change(
        "ddpm models set-default",
        lambda wanted: wanted.with_default(name, version),
        models,
        url,
        inference_url,
        model_store,
    )


@app.command()
def unregister(
    name: Name,
    version: Version,
    models: Models = _MODELS,
    url: Url = _URL,
    inference_url: InferenceUrl = _INFERENCE_URL,
    model_store: Store = _STORE,
) -> None:
    """Remove a version; its archive stays in the model store. The default goes last.

    Example: ddpm models unregister faces-64 0.1
    """
    _change(
        "ddpm models unregister",
        lambda wanted: wanted.without(name, version),
        models,
        url,
        inference_url,
        model_store,
    )


def _change(
    command: str, change: Callable[[Desired], Desired], models: Path, url: str, inference_url: str, model_store: Path
) -> None:
    """Change a copy of models.yaml, apply it, and save it once it holds: a version that fails is never written down."""
    with told_in_a_line(command):
        before = desired.load(models)
        wanted = change(before)
        converger = Converger(Management(url), inference_url, model_store, say=lambda line: typer.echo(line, err=True))
        report = converger.apply(wanted)
        fresh = {key for key in report.failed if _is_news(before, wanted, key)}
        if fresh:
            name, version = sorted(fresh)[0]
            raise ServiceError(f"{name} {version}: {report.failed[name, version]}; {models} is unchanged")
        desired.save(wanted, models)


def _is_news(before: Desired, wanted: Desired, key: tuple[str, str]) -> bool:
    """Whether the failure of a version concerns what was changed: the version itself, or that it is the default now."""
    name, version = key
    old, new = before.models.get(name), wanted.models[name]
    if old is None or old.versions.get(version) != new.versions[version]:
        return True
    return new.default == version != old.default
