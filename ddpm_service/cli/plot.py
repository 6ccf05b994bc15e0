"""`ddpm plot`: pictures of schedules, diffusion, plans, losses, samples and copies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ddpm_api import Mode, Sampler
from ddpm_service.cli.choices import between
from ddpm_service.cli.evaluate import Samplers, Steps, parse_cells
from ddpm_service.cli.failure import told_in_a_line
from ddpm_service.cli.loading import Device, RunCode

app = typer.Typer(
    help="Draw: schedule, forward, backward, losses, table, samples, copies.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _png(path: Path) -> Path:
    if path.suffix.lower() != ".png":
        raise typer.BadParameter(f"{path} does not end in .png.")
    return path


Out = Annotated[Path, typer.Option(help="The picture, PNG.", callback=_png)]
Model = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The model: a folder with bundle.json.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the first picture.")]
OneSampler = Annotated[Sampler | None, typer.Option(help="From noise to picture. (default: by model)")]
Calls = Annotated[int | None, typer.Option(help="Network calls. (default: the model's own)")]


@app.command()
def schedule(
    out: Out,
    bundles: Annotated[list[Path] | None, typer.Argument(metavar="[BUNDLE]...", help="Models to draw as well.")] = None,
) -> None:
    """Draw the linear and the cosine noise schedule, and those of models.

    Example: ddpm plot schedule models/faces-64/2.1 --out schedule.png
    """
    with told_in_a_line("ddpm plot schedule"):
        from ddpm_core.bundle import read_bundle
        from ddpm_core.evaluation.plots import draw_schedules
        from ddpm_core.schedule import cosine, linear

        drawn = {"linear": (linear(), 256), "cosine": (cosine(), 256)}
        for path in bundles or ():
            bundle = read_bundle(path)
            name = f"{bundle.manifest.name} {bundle.manifest.version}"
            drawn[name] = (bundle.schedule, bundle.manifest.image_size)
        draw_schedules(drawn, out)
    typer.echo(out)


@app.command()
def forward(
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Any picture; its middle square is used.")],
    out: Out,
    size: Annotated[int, between(8, 2048, help="side in pixels.")] = 64,
) -> None:
    """Draw how noise takes a picture over, on the linear and on the cosine schedule.

    Example: ddpm plot forward photo.jpg --out forward.png
    """
    with told_in_a_line("ddpm plot forward"):
        from ddpm_core.data.images import decode
        from ddpm_core.evaluation.plots import draw_forward
        from ddpm_core.schedule import cosine, linear

        draw_forward(decode(image.read_bytes(), size), {"linear": linear(), "cosine": cosine()}, out)
    typer.echo(out)


@app.command()
def backward(
    bundle: Model,
    out: Out,
    num_images: Annotated[int, between(1, 16, help="how many, two rows each.")] = 3,
    sampler: OneSampler = None,
    num_inference_steps: Calls = None,
    seed: Seed = 0,
    device: Device = None,
    run_code: RunCode = False,
) -> None:
    """Draw how pictures come out of noise, and what the model makes of them on the way.

    Example: ddpm plot backward models/faces-64/2.1 --num-images 3 --out backward.png
    """
    with told_in_a_line("ddpm plot backward"):
        from ddpm_core import load, sampling
        from ddpm_core.evaluation.plots import draw_backward

        pipeline = load(bundle, device=device, dtype="float32", run_code=run_code)
        defaults = pipeline.bundle.manifest.defaults
        calls = num_inference_steps or defaults.num_inference_steps
        draw_backward(
            pipeline, sampling.Sampler(sampler or defaults.sampler), calls, range(seed, seed + num_images), out
        )
    typer.echo(out)


@app.command()
def losses(
    run: Annotated[Path, typer.Argument(help="A run made by `ddpm train`.")],
    out: Out,
) -> None:
    """Draw training and validation loss of a run against images seen.

    Example: ddpm plot losses runs/mine --out losses.png
    """
    with told_in_a_line("ddpm plot losses"):
        from ddpm_core.errors import InvalidInput
        from ddpm_core.training.logbook import METRICS, draw_losses

        if not (run / METRICS).is_file():
            raise InvalidInput("no_run", f"There is no {METRICS} in {run}.", field="run", given=str(run))
        draw_losses(run, out)
    typer.echo(out)


@app.command()
def table(
    bundle: Model,
    out: Out,
    mode: Annotated[Mode, typer.Option(help="How a selfie would guide.")] = Mode.NONE,
    sampler: OneSampler = None,
    num_inference_steps: Annotated[int | None, typer.Option(help="Network calls. (default: by mode)")] = None,
    eta: Annotated[float, typer.Option(help="0..1, for ddim.")] = 0.0,
) -> None:
    """Draw the numbers of a plan: what each network call does.

    Example: ddpm plot table models/faces-64/2.1 --mode likeness --out table.png
    """
    with told_in_a_line("ddpm plot table"):
        import numpy as np

        from ddpm_core.bundle import read_bundle
        from ddpm_core.evaluation.plots import draw_table
        from ddpm_core.plan import make_plan

        model = read_bundle(bundle)
        side = model.manifest.image_size
        selfie = None if mode is Mode.NONE else np.zeros((side, side, 3), np.uint8)
        plan = make_plan(
            model, selfie, mode=mode, sampler=sampler, num_inference_steps=num_inference_steps, eta=eta, seed=0
        )
        words = ", ".join(
            f"{key} {value}" for key, value in plan.parameters.items() if key not in ("seed", "num_images")
        )
        draw_table(plan.table, f"{model.manifest.name} {model.manifest.version}: {words}", out)
    typer.echo(out)


@app.command()
def samples(
    bundle: Model,
    out: Out,
    num_images: Annotated[int, between(1, 32, help="pictures a row.")] = 8,
    sampler: Samplers = None,
    num_inference_steps: Steps = None,
    seed: Seed = 0,
    device: Device = None,
    run_code: RunCode = False,
) -> None:
    """Draw the same seeds by several samplers and numbers of steps, one row each.

    Example: ddpm plot samples models/faces-64/2.1 --num-inference-steps 5,10,50 --out samples.png
    """
    with told_in_a_line("ddpm plot samples"):
        from ddpm_core import load
        from ddpm_core.evaluation.draw import draw
        from ddpm_core.evaluation.plots import draw_samples

        pipeline = load(bundle, device=device, run_code=run_code)
        manifest = pipeline.bundle.manifest
        cells = parse_cells(sampler, num_inference_steps, manifest.defaults)
        seeds = range(seed, seed + num_images)
        rows = {
            f"{name}, {calls}": draw(pipeline.bundle, pipeline.denoiser, seeds, sampler=name, num_inference_steps=calls)
            for name, calls in cells
        }
        draw_samples(rows, f"{manifest.name} {manifest.version}: seeds {seed} to {seeds[-1]}", out)
    typer.echo(out)


@app.command()
def copies(
    bundle: Model,
    reference: Annotated[Path, typer.Option(help="The images that the model was trained on: folder, zip or list.")],
    out: Annotated[Path, typer.Option(help="The picture, PNG; the table is written beside it as JSON.", callback=_png)],
    num_images: Annotated[int, typer.Option(min=1, help="Samples to look at.")] = 200,
    num_inference_steps: Calls = None,
    seed: Seed = 0,
    device: Device = None,
    run_code: RunCode = False,
) -> None:
    """Draw samples beside their nearest training images, the most alike first, to see whether it copies.

    Example: ddpm plot copies models/faces-64/2.1 --reference faces64.zip --out copies.png
    """
    with told_in_a_line("ddpm plot copies"):
        import numpy as np

        from ddpm_core import load
        from ddpm_core.evaluation.copies import find_copies
        from ddpm_core.evaluation.draw import draw
        from ddpm_core.evaluation.plots import draw_copies
        from ddpm_core.evaluation.reference import read_reference

        pipeline = load(bundle, device=device, run_code=run_code)
        manifest = pipeline.bundle.manifest
        real = read_reference(reference, pipeline.bundle)
        calls = num_inference_steps or manifest.defaults.num_inference_steps
        seeds = range(seed, seed + num_images)
        pixels = draw(pipeline.bundle, pipeline.denoiser, seeds, num_inference_steps=calls)
        found = find_copies(pixels, real.pixels)
        title = f"{manifest.name} {manifest.version}"
        draw_copies(pixels, real.pixels, found, title, out)
        report = {
            "model": title,
            "reference_fingerprint": real.fingerprint,
            "reference_images": len(real.names),
            "num_images": num_images,
            "num_inference_steps": calls,
            "threshold": found.threshold,
            "below_threshold": found.suspicious,
            "median_distance": float(np.median(found.distances)),
            "median_distance_of_real_images": float(np.median(found.real_distances)),
            "samples": [
                {
                    "seed": seed + int(i),
                    "nearest": real.names[found.nearest[i]],
                    "mirrored": bool(found.mirrored[i]),
                    "distance": round(float(found.distances[i]), 3),
                }
                for i in np.argsort(found.distances)
            ],
        }
        out.with_suffix(".json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    typer.echo(out)
    typer.echo(out.with_suffix(".json"))
