"""`ddpm evaluate`: how good a model is; here its samples, one row a sampler and number of steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ddpm_service.cli.evaluate_faces import face_network
from ddpm_service.cli.evaluate_gate import gate
from ddpm_service.cli.evaluate_likeness import likeness
from ddpm_service.cli.evaluate_look import look, tally
from ddpm_service.cli.evaluate_wholeness import wholeness
from ddpm_service.cli.failure import told_in_a_line
from ddpm_service.cli.loading import Device, Dtype, RunCode
from ddpm_service.cli.progress import reported

if TYPE_CHECKING:
    from ddpm_core.bundle import SamplingDefaults

app = typer.Typer(
    help="Measure a model. Example: ddpm evaluate samples models/faces-64/2.1 --reference faces64.zip --out a.json",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command()(likeness)
app.command()(gate)
app.command()(look)
app.command()(tally)
app.command()(wholeness)

_OF_FACES = ("whole_faces", "face_asymmetry", "face_kid", "face_frechet", "face_precision", "face_recall")

Samplers = Annotated[
    str | None, typer.Option(help="One or more of ddpm, ddim, dpmpp_2m, lcm, with commas. (default: the model's own)")
]
Steps = Annotated[str | None, typer.Option(help="Network calls, one or more, with commas. (default: the model's own)")]


@app.command()
def samples(
    bundle: Annotated[Path, typer.Argument(help="The model: a folder with bundle.json.")],
    reference: Annotated[Path, typer.Option(help="Real images to measure against: folder, zip or list.")],
    out: Annotated[Path, typer.Option(help="Table of figures, JSON; rows that it holds already are kept.")],
    num_images: Annotated[int, typer.Option(help="Samples a row.")] = 1000,
    sampler: Samplers = None,
    num_inference_steps: Steps = None,
    inception: Annotated[
        Path | None,
        typer.Option(
            help="A TorchScript for FID and KID: inception-2015-12-05.pt. "
            "It is a program that is run: take it only from whom you trust. "
            "Without, figures in wavelet features, which are no FID."
        ),
    ] = None,
    held_back: Annotated[
        bool, typer.Option("--held-back", help="Only those images of the reference that training held back.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the first sample; sample i has seed + i.")] = 0,
    device: Device = None,
    dtype: Dtype = "auto",
    run_code: RunCode = False,
) -> None:
    """Measure unguided images against real ones; print the table. Interrupted, it goes on when called again.

    Example: ddpm evaluate samples models/faces-64/2.1 --reference faces64.zip --num-inference-steps 5,10 --out a.json
    """
    with told_in_a_line("ddpm evaluate samples"):
        from ddpm_core import load
        from ddpm_core.data.left_out import told
        from ddpm_core.evaluation.extractor import inception_extractor, names, wavelet_extractor
        from ddpm_core.evaluation.reference import read_reference
        from ddpm_core.evaluation.sweep import evaluate as measure

        pipeline = load(bundle, device=device, dtype=dtype, run_code=run_code)
        where = pipeline.denoiser.device
        cells = parse_cells(sampler, num_inference_steps, pipeline.bundle.manifest.defaults)
        extractor = wavelet_extractor(where) if inception is None else inception_extractor(inception, where)
        real = read_reference(reference, pipeline.bundle, held_back=held_back)
        if real.dropped:
            typer.echo(told(real.dropped), err=True)
        look = face_network(pipeline.bundle.manifest.domain)
        with reported() as report:
            rows = measure(
                pipeline,
                real,
                extractor,
                cells,
                out,
                num_images=num_images,
                seed=seed,
                look=look,
                report=report,
            )
    _show(rows, names(extractor.substitute))


def parse_cells(samplers: str | None, steps: str | None, defaults: SamplingDefaults) -> list[tuple[Any, int]]:
    """Give each sampler at each number of steps, the model's own where none is said.

    Raises:
        InvalidInput: a name that is no sampler, or a number that is none.
    """
    from ddpm_core.errors import InvalidInput
    from ddpm_core.sampling import Sampler

    known = ", ".join(Sampler)
    wanted = (samplers if samplers is not None else defaults.sampler).split(",")
    for name in wanted:
        if name not in set(Sampler):
            message = f"--sampler: {name!r} is not one of {known}."
            raise InvalidInput("unknown_value", message, field="sampler", given=name, allowed=known)
    numbers = steps.split(",") if steps is not None else [str(defaults.num_inference_steps)]
    for number in numbers:
        if not number.isdecimal():
            message = f"--num-inference-steps: {number!r} is not a number of steps."
            raise InvalidInput("not_a_number", message, field="num_inference_steps", given=number, allowed="5,10,50")
    return [(Sampler(name), int(number)) for name in wanted for number in numbers]


def _show(rows: list[dict[str, Any]], names: list[str]) -> None:
    """Print the figures, and beneath them what they were measured with."""
    kernel, error, *others = names
    others += [name for name in _OF_FACES if any(name in row for row in rows)]
    table = Table("sampler", "steps", "n", kernel, *others, box=None)
    for column in table.columns:
        column.no_wrap = True
    for row in rows:
        table.add_row(
            row["sampler"],
            str(row.get("num_inference_steps", "")),
            str(row["num_images"]),
            f"{row[kernel]:.5f} ± {row[error]:.5f}",
            *(f"{row[name]:.3f}" if name in row else "" for name in others),
        )
    console = Console(width=max(200, Console().width))
    console.print(table)
    last = rows[-1]
    console.print(
        f"{last['model']} {last['version']} at {last['image_size']} px; reference: {last['reference_images']} images, "
        f"{last['reference']}, {last['reference_fingerprint']}; features: {last['features']} "
        f"{last['features_version'][:16]}; seed {last['seed']}",
        soft_wrap=True,
        highlight=False,
    )
