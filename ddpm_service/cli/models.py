"""`ddpm models …`: look at what TorchServe serves, and change models.yaml and TorchServe together."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ddpm_service.archive import read_manifest, unpacked_manifest
from ddpm_service.cli.failure import told_in_a_line
from ddpm_service.errors import ServiceError
from ddpm_service.torchserve import desired
from ddpm_service.torchserve.applied import vouched, wait_until_applied
from ddpm_service.torchserve.converge import Converger
from ddpm_service.torchserve.desired import Desired
from ddpm_service.torchserve.leave import wait_until_unused
from ddpm_service.torchserve.management import Management
from ddpm_service.torchserve.server import TorchServe, running
from ddpm_service.torchserve.sockets import Sockets

app = typer.Typer(no_args_is_help=True, help="List, describe, register, scale, set the default of, unregister models.")

Models = Annotated[Path, typer.Option(help="The file that says what is served.")]
Config = Annotated[Path, typer.Option(help="TorchServe's settings: its addresses and its model store.")]
Name = Annotated[str, typer.Argument(help="A model's name.")]
Version = Annotated[str, typer.Argument(help="One of its versions.")]

_MODELS = Path("models.yaml")
_CONFIG = Path("config.properties")


@app.command("list")
def list_models(config: Config = _CONFIG) -> None:
    """Show every model and version that TorchServe has now.

    Example: ddpm models list
    """
    with told_in_a_line("ddpm models list"):
        management = Management(running(config).management_url)
        table = Table("MODEL", "VERSION", "DEFAULT", "STATE", "ARCHIVE", box=None)
        for name in management.models():
            default = management.default(name)
            for served in management.describe(name):
                state = "ready" if served.ready else "not ready" if served.workers else "no worker"
                if len(served.workers) > 1:
                    state += f" ({len(served.workers)} workers, which stall one another: `ddpm serve` keeps one)"
                table.add_row(name, served.version, "yes" if served.version == default else "", state, served.archive)
        Console(soft_wrap=True).print(table)


@app.command()
def describe(name: Name, config: Config = _CONFIG) -> None:
    """Print all versions of a model as JSON: archive, workers, state.

    Example: ddpm models describe faces-64
    """
    with told_in_a_line("ddpm models describe"):
        served = Management(running(config).management_url).describe(name)
        if not served:
            raise ServiceError(f"TorchServe has no model {name}")
        typer.echo(json.dumps([asdict(version) for version in served], indent=2))


@app.command()
def register(
    archive: Annotated[str, typer.Argument(help="A file of the model store; it names its model and version.")],
    default: Annotated[bool, typer.Option("--default", help="Let it answer when no version is named.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of what is served by its name and version.")
    ] = False,
    models: Models = _MODELS,
    config: Config = _CONFIG,
) -> None:
    """Add a version: it is loaded and makes an image before it is written into models.yaml.

    What it replaces ends its running requests and goes first; meanwhile the version answers nobody.

    Example: ddpm models register faces-64_0.2.mar --default
    """
    command = "ddpm models register"
    with told_in_a_line(command):
        manifest = read_manifest(TorchServe(config).model_store / archive)
        name, version = manifest["name"], manifest["version"]
        other = _other_model(name, version, manifest, archive, config)
        if other and not replace:
            raise ServiceError(
                f"{name} {version} is served already, by {other}; --replace puts {archive} in its place, and "
                "`ddpm export --version` makes one of another version"
            )
    if other:
        _change(command, lambda wanted: wanted.without(name, version), models, config)
    _change(command, lambda wanted: wanted.with_version(name, version, archive, default=default), models, config)


def _other_model(name: str, version: str, manifest: dict[str, Any], archive: str, config: Path) -> str | None:
    """Say what else is served by a name and version than what an archive holds, if anything is."""
    for served in Management(running(config).management_url).describe(name):
        if served.version == version:
            if served.archive != archive:
                return served.archive
            loaded = (unpacked_manifest(worker.pid) for worker in served.workers)
            if any(each not in (None, manifest) for each in loaded):
                return f"what {archive} held before"
    return None


@app.command()
def scale(
    name: Name,
    version: Version,
    workers: Annotated[int, typer.Argument(help="1 loads it, 0 unloads it. For more, run more pods.", min=0, max=1)],
    models: Models = _MODELS,
    config: Config = _CONFIG,
) -> None:
    """Load or unload a version; unloading frees its memory, after its running requests have ended.

    Example: ddpm models scale faces-64 1.0 0
    """
    _change(
        "ddpm models scale",
        lambda wanted: wanted.with_workers(name, version, workers),
        models,
        config,
    )


@app.command("set-default")
def set_default(
    name: Name,
    version: Version,
    models: Models = _MODELS,
    config: Config = _CONFIG,
) -> None:
    """Let a version answer when none is named, also after a restart. This is how to roll back.

    Example: ddpm models set-default faces-64 1.0
    """
    _change(
        "ddpm models set-default",
        lambda wanted: wanted.with_default(name, version),
        models,
        config,
    )


@app.command()
def unregister(
    name: Name,
    version: Version,
    models: Models = _MODELS,
    config: Config = _CONFIG,
) -> None:
    """Remove a version after its running requests; its archive stays in the model store. The default goes last.

    Example: ddpm models unregister faces-64 1.0
    """
    _change(
        "ddpm models unregister",
        lambda wanted: wanted.without(name, version),
        models,
        config,
    )


def _change(command: str, change: Callable[[Desired], Desired], models: Path, config: Path) -> None:
    """Change a copy of models.yaml, apply it, and save it once it holds: a version that fails is never written down.

    What takes a version away is saved first: by that `ddpm serve` lets no more requests in, and those that run end.
    Where it runs, it answers by the change when this returns.
    """

    def say(line: str) -> None:
        typer.echo(line, err=True)

    def wait(folder: int) -> None:
        from ddpm_core.writer import holder

        say(f"waiting for the end of the change by {holder(folder)}")

    with told_in_a_line(command):
        server = running(config)
        management = Management(server.management_url)
        management.models()  # it answers: else nothing is written
        with desired.changing(server.model_store, wait) as share:
            before = desired.load(models)
            wanted = change(before)
            leaving = _loaded(before) - _loaded(wanted)

            def drain(name: str, version: str) -> None:
                # `ddpm serve` does not know what an interrupted change has left behind.
                ours = (name, version) in leaving
                wait_until_unused(server, name, version, supervised=lambda: ours and desired.is_applied(models))

            def check(failed: Mapping[tuple[str, str], str], *, written: bool) -> None:
                for name, version in sorted(key for key in failed if _is_news(before, wanted, key)):
                    has = "has it all the same" if written else "is unchanged"
                    raise ServiceError(f"{name} {version}: {failed[name, version]}; {models} {has}")

            if leaving:
                desired.save(wanted, models)
                share()
            converger = Converger(
                management,
                server.inference_url,
                server.model_store,
                say=say,
                drain=drain,
                vouched=vouched(Sockets.of(config)),
            )
            check(converger.apply(wanted).failed, written=bool(leaving))
            if not leaving:
                desired.save(wanted, models)
        applied = wait_until_applied(Sockets.of(config), models, say)
        if applied is None:
            say(f"{models} is changed; no `ddpm serve` that runs here applies it")
        else:
            check({(name, version): why for name, version, why in applied.failed}, written=True)


def _loaded(wanted: Desired) -> set[tuple[str, str]]:
    """The versions that have a worker."""
    return {
        (name, version)
        for name, model in wanted.models.items()
        for version, wish in model.versions.items()
        if wish.workers
    }


def _is_news(before: Desired, wanted: Desired, key: tuple[str, str]) -> bool:
    """Whether the failure of a version concerns what was changed: the version itself, or that it is the default now."""
    name, version = key
    old, new = before.models.get(name), wanted.models.get(name)
    if new is None or version not in new.versions:
        return False
    if old is None or old.versions.get(version) != new.versions[version]:
        return True
    return new.default == version != old.default
