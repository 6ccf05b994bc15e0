"""`ddpm evaluate gate`: what is usual for a model, for mode `auto` and for best of K."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddpm_service.cli.failure import told_in_a_line
from ddpm_service.cli.loading import Device, RunCode
from ddpm_service.cli.progress import bars

_CALLS = 10  # as good as many, in a sampler of second order


def gate(
    bundle: Annotated[Path, typer.Argument(help="The model: a folder with bundle.json, which is written to.")],
    reference: Annotated[
        Path | None,
        typer.Option(help="Real images of its kind: folder, zip or list. Without, the model's own samples."),
    ] = None,
    held_back: Annotated[
        bool, typer.Option("--held-back", help="Only those images of the reference that training held back.")
    ] = False,
    num_images: Annotated[int, typer.Option(help="How many are looked at.")] = 400,
    device: Device = None,
    run_code: RunCode = False,
) -> None:
    """Find out what is usual for a model and keep it in bundle.json.

    Mode auto then knows a strange picture, and with real images of its kind best of K guesses which face broke;
    `ddpm evaluate wholeness` teaches it to know.

    Example: ddpm evaluate gate models/faces-64/2.1 --reference faces64.zip --held-back
    """
    with told_in_a_line("ddpm evaluate gate"):
        from ddpm_core import load
        from ddpm_core.bundle import keep_statistics
        from ddpm_core.errors import InvalidInput
        from ddpm_core.evaluation.draw import draw
        from ddpm_core.evaluation.reference import read_reference
        from ddpm_core.evaluation.usual import direction, likenesses, usual

        if held_back and reference is None:
            raise InvalidInput("conflict", "--held-back needs --reference.", field="held_back", given=True)
        pipeline = load(bundle, device=device, run_code=run_code)
        with bars() as progress:
            if reference is None:
                task = progress.add_task("sampling", total=num_images)
                pixels = draw(
                    pipeline.bundle,
                    pipeline.denoiser,
                    range(num_images),
                    num_inference_steps=_CALLS,
                    on_images=lambda n: progress.advance(task, n),
                )
                source = f"{num_images} of its own samples"
            else:
                real = read_reference(reference, pipeline.bundle, held_back=held_back)
                pixels = real.pixels[:num_images]
                source = f"{len(pixels)} images of {reference.name} ({real.part}, {real.fingerprint})"
            look = progress.add_task("looking", total=len(pixels))
            statistics = usual(pipeline, pixels, source, lambda n: progress.advance(look, n))
            if reference is not None:
                task = progress.add_task("making faces of them", total=len(pixels))
                made = likenesses(pipeline, pixels, lambda n: progress.advance(task, n))
                found = direction(pipeline, pixels, made, source)
                statistics = statistics.model_copy(update={"wholeness": found})
        keep_statistics(bundle, statistics)
        typer.echo(f"{bundle}: the gate knows {source}")
