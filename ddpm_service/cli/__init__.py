"""The `ddpm` command: one subcommand a file."""

from __future__ import annotations

import resource
import signal
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from ddpm_service.cli.bench import app as bench
from ddpm_service.cli.evaluate import app as evaluate
from ddpm_service.cli.generate import generate
from ddpm_service.cli.import_ import import_
from ddpm_service.cli.inspect import inspect
from ddpm_service.cli.models import app as models
from ddpm_service.cli.pack import pack
from ddpm_service.cli.plot import app as plot
from ddpm_service.cli.sample import sample
from ddpm_service.cli.serve import serve
from ddpm_service.cli.train import export, prepare, resume, train
from ddpm_service.environment import set_defaults

app = typer.Typer(
    name="ddpm",
    help="A selfie in, celebrity-like faces that resemble it out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ddpm-lookalike {version('ddpm-lookalike')}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """A selfie in, celebrity-like faces that resemble it out."""


for command in (serve, generate, sample, prepare, train, resume, export, inspect, pack):
    app.command()(command)
app.command("import")(import_)
app.add_typer(bench, name="bench")
app.add_typer(evaluate, name="evaluate")
app.add_typer(plot, name="plot")
app.add_typer(models, name="models", help="What is served: list, describe, register, scale, set-default, unregister.")


def run() -> None:
    """Run the command that the line names; SIGTERM ends it with 143."""
    set_defaults()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # also of what is started here: a core holds faces
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    app()
