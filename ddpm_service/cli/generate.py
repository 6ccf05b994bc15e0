"""`ddpm generate`: a selfie in, faces that resemble it out, as files."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ddpm_api import (
    Event,
    InvalidRequest,
    Mode,
    OutputFormat,
    ProgressEvent,
    QueuedEvent,
    Result,
    ResultBuilder,
    Sampler,
    StartedEvent,
    WarningEvent,
    contact_sheet,
    parse_json,
)
from ddpm_service.cli.failure import told_in_a_line
from ddpm_service.client import DEFAULT_MODEL, Client
from ddpm_service.errors import ServiceError

_INTERRUPTED = 130


def generate(
    out: Annotated[Path, typer.Option(file_okay=False, help="The folder to write to.")],
    image: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The selfie; without it, from noise.")
    ] = None,
    model: Annotated[str, typer.Option(help="The model's name.")] = DEFAULT_MODEL,
    model_version: Annotated[str | None, typer.Option(help="One of its versions. (default: its default)")] = None,
    num_images: Annotated[int | None, typer.Option(help="1..16. (default: 5 with a selfie, else 1)")] = None,
    mode: Annotated[Mode | None, typer.Option(help="How the selfie guides. (default: auto with a selfie)")] = None,
    resemblance: Annotated[float | None, typer.Option(help="0 celebrity .. 1 like you. (default: by mode)")] = None,
    sampler: Annotated[Sampler | None, typer.Option(help="From noise to picture. (default: by mode)")] = None,
    num_inference_steps: Annotated[int | None, typer.Option(help="Network calls. (default: by mode)")] = None,
    eta: Annotated[float | None, typer.Option(help="0..1, for ddim. (default: 0)")] = None,
    guidance_loss_scale: Annotated[float | None, typer.Option(help="0..1000, for mode pixel. (default: 50)")] = None,
    guide: Annotated[
        float | None, typer.Option(help="1..3: how far the model's guide pushes; 1 is off. (default: the model's)")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="0..4294967295, for the same faces again. (default: random)")] = None,
    align: Annotated[str | None, typer.Option(help="auto, center, none, or a box left,top,right,bottom.")] = None,
    face: Annotated[int | None, typer.Option(help="Which of the faces found. (default: the largest)")] = None,
    best_of: Annotated[int | None, typer.Option(help="Make so many, keep the best. (default: all)")] = None,
    output_format: Annotated[OutputFormat | None, typer.Option(help="File format. (default: png)")] = None,
    url: Annotated[str, typer.Option(help="The service's address.")] = "http://127.0.0.1:8000",
    token: Annotated[str | None, typer.Option(envvar="DDPM_TOKEN", help="Its API token.")] = None,
) -> None:
    """Make faces that resemble a selfie; print the paths of the files.

    Beside the faces, sheet.png shows all of them, the aligned selfie first.

    Example: ddpm generate --image me.jpg --num-images 5 --seed 7 --out faces
    """
    asked: dict[str, Any] = {
        "num_images": num_images,
        "mode": mode,
        "resemblance": resemblance,
        "sampler": sampler,
        "num_inference_steps": num_inference_steps,
        "eta": eta,
        "guidance_loss_scale": guidance_loss_scale,
        "guide": guide,
        "seed": seed,
        "align": align,
        "face": face,
        "best_of": best_of,
        "output_format": output_format,
        "return_target": True if image is not None else None,
    }
    fields = {name: value for name, value in asked.items() if value is not None}
    with told_in_a_line("ddpm generate"):
        try:
            picture = image.read_bytes() if image is not None else None
            _check(picture, fields)
            out.mkdir(parents=True, exist_ok=True)
            with (
                Client(url, token) as client,
                closing(client.stream(picture, model=model, version=model_version, **fields)) as events,
            ):
                result = _follow(events)
            for path in _write(result, out):
                typer.echo(path)
        except OSError as error:
            raise ServiceError(str(error)) from error
        except KeyboardInterrupt:
            raise typer.Exit(_INTERRUPTED) from None


def _check(picture: bytes | None, fields: dict[str, Any]) -> None:
    """Refuse as wrong usage what the service would refuse whatever the model."""
    try:
        parse_json(fields if picture is None else {"image": picture, **fields})
    except InvalidRequest as problem:
        option = f"--{(problem.error.field or 'image').replace('_', '-')}"
        raise typer.BadParameter(problem.error.message, param_hint=option) from None


def _follow(events: Iterator[Event]) -> Result:
    """The result of the events, shown as they come: a bar on a terminal, in a pipe the warnings alone."""
    builder = ResultBuilder()
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}")
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=False, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("asking", total=None, left="")
        for event in events:
            builder.feed(event)
            match event:
                case QueuedEvent():
                    bar.update(task, description=f"waiting, position {event.position}")
                case StartedEvent():
                    bar.update(task, description=f"making faces, seed {event.seed}")
                case ProgressEvent():
                    left = "" if event.eta_seconds is None else f"{event.eta_seconds:.0f} s left"
                    bar.update(task, completed=event.step, total=event.total_steps, left=left)
                case WarningEvent():
                    console.print(f"warning: {event.message}", markup=False, highlight=False, soft_wrap=True)
                case _:
                    pass
    return builder.result()


def _write(result: Result, out: Path) -> Iterator[Path]:
    """Write the faces and the contact sheet; each file appears whole or not at all."""
    target = result.target.b64_json if result.target else None
    for face in result.images:
        suffix = face.content_type.removeprefix("image/")
        yield _whole(out / f"face-{face.index:02d}-seed{face.seed}.{suffix}", face.data)
    pictures = [base64.b64decode(target)] if target else []
    sheet = contact_sheet([*pictures, *(face.data for face in result.images)], OutputFormat.PNG)
    yield _whole(out / "sheet.png", sheet)


def _whole(path: Path, data: bytes) -> Path:
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
