"""`ddpm sample`: images from a bundle, in this process, without a server."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from ddpm_api import Mode, Sampler, contact_sheet
from ddpm_service.cli.failure import told_in_a_line
from ddpm_service.cli.loading import Device, Dtype, RunCode
from ddpm_service.cli.pictures import folder_for, picture_format, read_picture
from ddpm_service.cli.progress import bars


def sample(
    bundle: Annotated[Path, typer.Argument(help="The model: a folder with bundle.json.")],
    out: Annotated[
        Path, typer.Option(help="A folder for one PNG a seed, or a .png, .jpg or .webp for all in one sheet.")
    ],
    num_images: Annotated[int, typer.Option(min=1, help="How many; made in batches of 16.")] = 16,
    image: Annotated[
        Path | None, typer.Option(help="A selfie to resemble, - for standard input; without it, from noise.")
    ] = None,
    mode: Annotated[Mode | None, typer.Option(help="How the selfie guides. (default: auto with a selfie)")] = None,
    resemblance: Annotated[float | None, typer.Option(help="0 celebrity .. 1 like you. (default: by mode)")] = None,
    sampler: Annotated[Sampler | None, typer.Option(help="From noise to picture. (default: by model)")] = None,
    num_inference_steps: Annotated[int | None, typer.Option(help="Network calls. (default: by mode)")] = None,
    eta: Annotated[float, typer.Option(help="0..1, for ddim.")] = 0.0,
    guidance_loss_scale: Annotated[float, typer.Option(help="Strength of mode pixel.")] = 50.0,
    guide: Annotated[
        float | None, typer.Option(help="1..3: how far the model's guide pushes; 1 is off. (default: the model's)")
    ] = None,
    through_network: Annotated[
        bool, typer.Option("--through-network", help="Mode pixel with its gradient through the network: slow.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the first image, or -1 for a random one; image i has seed + i.")] = -1,
    face_detector: Annotated[
        Path | None, typer.Option(help="A YuNet ONNX file to find faces with. (default: one beside the models)")
    ] = None,
    device: Device = None,
    dtype: Dtype = "auto",
    run_code: RunCode = False,
) -> None:
    """Sample a model and write PNGs, each with its seed and settings inside; print their paths.

    Example: ddpm sample models/faces-64/2.1 --num-images 16 --seed 0 --out grid.png
    """
    with told_in_a_line("ddpm sample"):
        # torch takes seconds to import: only now, when the command line is known to be right.
        from ddpm_core import load
        from ddpm_core.errors import InvalidInput
        from ddpm_core.gate import Judgement
        from ddpm_core.plan import MAX_IMAGES, make_plan
        from ddpm_core.sampling import MAX_SEED

        if through_network and mode is not Mode.PIXEL:
            raise InvalidInput(
                "conflict", "--through-network is for --mode pixel.", field="through_network", allowed="with mode pixel"
            )
        pipeline = load(bundle, device=device, dtype=dtype, face_detector=face_detector, run_code=run_code)
        target = None if image is None else pipeline.aim(read_picture(image))
        how: dict[str, Any] = {
            "mode": mode,
            "resemblance": resemblance,
            "sampler": sampler,
            "num_inference_steps": num_inference_steps,
            "eta": eta,
            "guidance_loss_scale": guidance_loss_scale,
            "guide": guide,
            "judgement": pipeline.judge(target) if target else Judgement(),
        }
        warned = target.warnings if target else ()
        pictures: list[bytes] = []
        with folder_for(out), bars() as progress:
            task = progress.add_task("Sampling", total=None)
            while len(pictures) < num_images:
                size = min(MAX_IMAGES, num_images - len(pictures))
                plan = make_plan(pipeline.bundle, target.pixels if target else None, num_images=size, seed=seed, **how)
                for _, message in (*warned, *plan.warnings) if not pictures else ():
                    progress.console.print(message, style="yellow")
                progress.update(task, total=plan.calls * -(-num_images // MAX_IMAGES))
                made = pipeline.run(plan, on_step=lambda _: progress.advance(task), through_network=through_network)
                pictures += [_png(picture) for picture in made]
                seeds = [*plan.seeds]
                _write(out, pictures[-size:], seeds)
                seed = (seeds[-1] + 1) % (MAX_SEED + 1)
        if (sheet_format := picture_format(out)) is not None:
            out.write_bytes(contact_sheet(pictures, sheet_format))
            typer.echo(out)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _write(out: Path, pictures: list[bytes], seeds: list[int]) -> None:
    """Write one file a seed, unless `out` is to be one sheet."""
    if picture_format(out):
        return
    for seed, picture in zip(seeds, pictures, strict=True):
        path = out / f"seed-{seed:010d}.png"
        path.write_bytes(picture)
        typer.echo(path)
