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
    parse_json,
)
from ddpm_api.request import FACES, MAX_IMAGES
from ddpm_service.cli.choices import between
from ddpm_service.cli.failure import told_in_a_line
from ddpm_service.cli.pictures import folder_for, picture_format, read_picture
from ddpm_service.client import DEFAULT_MODEL, Client
from ddpm_service.keepsake import card, enlarged, labelled_sheet, settings_in

_INTERRUPTED = 130


def generate(
    out: Annotated[Path, typer.Option(help="The folder to write to, or a .png, .jpg or .webp for one sheet of all.")],
    image: Annotated[
        Path | None, typer.Option(help="The selfie, - for standard input; without it, from noise.")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A picture made here: begin with its settings."),
    ] = None,
    model: Annotated[str | None, typer.Option(help=f"The model's name. (default: {DEFAULT_MODEL})")] = None,
    model_version: Annotated[str | None, typer.Option(help="One of its versions. (default: its default)")] = None,
    num_images: Annotated[int | None, typer.Option(help="1..16. (default: 5 with a selfie, else 1)")] = None,
    mode: Annotated[Mode | None, typer.Option(help="How the selfie guides. (default: auto with a selfie)")] = None,
    resemblance: Annotated[float | None, typer.Option(help="0 celebrity .. 1 like you. (default: by mode)")] = None,
    sampler: Annotated[Sampler | None, typer.Option(help="From noise to picture. (default: by model)")] = None,
    num_inference_steps: Annotated[int | None, typer.Option(help="Network calls. (default: by mode)")] = None,
    eta: Annotated[float | None, typer.Option(help="0..1, for ddim. (default: 0)")] = None,
    guidance_loss_scale: Annotated[float | None, typer.Option(help="0..1000, for mode pixel. (default: 50)")] = None,
    guide: Annotated[
        float | None, typer.Option(help="1..3: how far the model's guide pushes; 1 is off. (default: the model's)")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="0..4294967295, for the same faces again. (default: random)")] = None,
    align: Annotated[str | None, typer.Option(help="auto, center, none, or a box left,top,right,bottom.")] = None,
    face: Annotated[int | None, typer.Option(help="Which of the faces found. (default: the largest)")] = None,
    best_of: Annotated[
        int | None, typer.Option(help="Make so many, keep the best. (default: twice as many; with --seed all)")
    ] = None,
    output_format: Annotated[OutputFormat | None, typer.Option(help="File format. (default: png)")] = None,
    size: Annotated[int | None, between(16, 2048, help="enlarge the faces smoothly to this side, as PNG.")] = None,
    url: Annotated[str, typer.Option(help="The service's address.")] = "http://127.0.0.1:8000",
    token: Annotated[
        str | None, typer.Option(envvar="DDPM_TOKEN", help="Its API token; others of this machine see it here.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A file whose first line ends in the token.")
    ] = None,
) -> None:
    """Make faces that resemble a selfie; print the paths of the files.

    Beside the faces, sheet.png shows all of them, and card.png the nearest beside the aligned selfie.

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
            if like is not None:
                fields, told_model, told_version = _recalled(like, fields)
                model, model_version = (told_model, told_version) if model is None else (model, model_version)
            picture = read_picture(image) if image is not None else None
            if picture is not None:
                fields |= _choice(fields)
            _check(picture, fields)
            with (
                folder_for(out),
                Client(url, token if token_file is None else _token_in(token_file)) as client,
                closing(
                    client.stream(picture, model=model or DEFAULT_MODEL, version=model_version, **fields)
                ) as events,
            ):
                result = _follow(events)
                for path in [*_write(result, out, size)]:  # all are there, also where the reader leaves at the first
                    typer.echo(path)
        except KeyboardInterrupt:
            raise typer.Exit(_INTERRUPTED) from None


def _token_in(file: Path) -> str:
    """The token of the first line, which may have a name before it, as in the file of `ddpm serve --tokens`."""
    try:
        return file.read_text().splitlines()[0].split()[-1]
    except (IndexError, UnicodeDecodeError):
        raise typer.BadParameter(f"{file} does not begin with a token", param_hint="--token-file") from None


def _recalled(like: Path, fields: dict[str, Any]) -> tuple[dict[str, Any], str | None, str | None]:
    """The fields, model and version that a picture carries; what is said beside it wins."""
    try:
        settings = settings_in(like.read_bytes())
    except InvalidRequest as problem:
        raise typer.BadParameter(problem.error.message, param_hint="--like") from None
    model, version = settings.pop("model", None), settings.pop("version", None)
    for name, other in (("mode", "resemblance"), ("resemblance", "mode")):
        if name in fields:
            settings.pop(other, None)
    return settings | fields, model, version


def _choice(fields: dict[str, Any]) -> dict[str, Any]:
    """Twice as many to choose from, unless that is said or a seed asks for its faces; at resemblance 1 all are one."""
    is_said = fields.keys() & {"best_of", "seed"} or fields.get("mode") in {Mode.NONE, Mode.PIXEL}
    count = fields.get("num_images", FACES)
    if is_said or fields.get("resemblance") == 1 or not 1 <= count <= MAX_IMAGES:
        return {}
    return {"best_of": min(2 * count, MAX_IMAGES)}


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


def _write(result: Result, out: Path, size: int | None) -> Iterator[Path]:
    """Write the faces, their sheet and a card, or only a sheet; each file appears whole or not at all."""
    selfie = base64.b64decode(result.target.b64_json) if result.target and result.target.b64_json else None
    if (sheet_format := picture_format(out)) is not None:
        yield _whole(out, labelled_sheet(selfie, result.images, sheet_format))
        return
    for face in result.images:
        suffix = "png" if size else face.content_type.removeprefix("image/")
        data = enlarged(face, size) if size else face.data
        yield _whole(out / f"face-{face.index:02d}-seed{face.seed}.{suffix}", data)
    yield _whole(out / "sheet.png", labelled_sheet(selfie, result.images, OutputFormat.PNG))
    if selfie is not None:
        yield _whole(out / "card.png", card(selfie, max(result.images, key=lambda face: face.resemblance_score or 0)))


def _whole(path: Path, data: bytes) -> Path:
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
