"""`ddpm inspect`: what a bundle is, and whether it is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ddpm_service.cli.failure import told_in_a_line

_SHOWN = {"human_face": "human faces", "cat_face": "faces of cats", "any": "anything"}
_CURVES = {"squaredcos_cap_v2": ", cosine", "trained_betas": " of its own"}


def inspect(
    bundle: Annotated[Path, typer.Argument(help="The model: a folder with bundle.json.")],
    as_json: Annotated[bool, typer.Option("--json", help="All that is known, for programs.")] = False,
) -> None:
    """Say what a model is, and check that its files are whole and fit together. Code that it brings is not run.

    Example: ddpm inspect models/faces-64/2.1
    """
    with told_in_a_line("ddpm inspect"):
        from ddpm_core.bundle import UNET_CONFIG, read_bundle

        read = read_bundle(bundle)
        own = read.manifest.network
        # Whether weights fit code of their own only that code can tell.
        weights = read.read_weights() if own else dict(read.load_network().named_parameters())
        config = json.loads((bundle / UNET_CONFIG).read_text(encoding="utf-8"))
        facts: dict[str, Any] = {
            **read.manifest.model_dump(mode="json", exclude_none=True, exclude={"checksums"}),
            "network_class": config.get("_class_name"),
            "own_code": f"{own.file}, not run" if own else None,
            "parameters": sum(each.numel() for each in weights.values()),
            "schedule": read.schedule.name,
            "levels": read.schedule.num_levels,
            "checksums": "ok" if read.manifest.checksums else "none given",
        }
    if as_json:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    typer.echo(f"{facts['name']} {facts['version']}: {_SHOWN[facts['domain']]}, {facts['image_size']} px\n")
    table = Table("", "", show_header=False, box=None, pad_edge=False)
    for name, words in _page(facts):
        table.add_row(name, words)
    Console(highlight=False, markup=False).print(table)


def _page(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a user asks of a model, a line each."""
    seen, statistics = facts["provenance"], facts["statistics"]
    yield "terms", seen.get("terms") or "not said"
    kind = facts["own_code"] or facts["network_class"] or "of an unknown class"
    blocks = f", on blocks of {facts['patch']} × {facts['patch']} pixels" if facts["patch"] > 1 else ""
    bands = ", on bands" if facts.get("bands") else ""
    averaged = "averaged" if facts["weights"] == "ema" else "raw"
    yield "network", f"{kind}: {facts['parameters']:,} {averaged} weights{blocks}{bands}"
    levels = f"{facts['levels']:,} noise levels{_CURVES.get(facts['schedule'], ', ' + facts['schedule'])}"
    yield "diffusion", f"predicts {facts['prediction_type'].removesuffix('_prediction')}; {levels}"
    defaults = facts["defaults"]
    calls = f"{defaults['num_inference_steps']} network calls of {defaults['sampler']} unless said"
    means = "; means over noise in one call" if facts.get("averages") else ""
    yield "sampling", f"{calls}; guided ones take fewer{means}"
    if guide := facts.get("guide"):
        yield "guide", f"a worse network pushes by {guide['weight']:g} where σ₂₅₆ is {_range(guide['interval'])}"
    if gate := statistics.get("gate"):
        yield "gate", f"strange pictures are told by {gate['source']}"
    if "source" in seen:
        yield "source", " ".join(filter(None, [seen["source"], seen.get("revision")]))
    if "training_images" in seen:
        yield (
            "trained on",
            f"{seen['training_images']:,} images of {seen['data']}, {seen['held_back_images']:,} held back",
        )
        spent = timedelta(seconds=seen["seconds"])
        yield "training", f"{seen['images_seen']:,} images seen in {seen['steps']:,} steps, {spent} hours"
    if "init" in seen:
        yield "begun with", seen["init"]
    if facts["figures"]:
        yield "figures", ", ".join(f"{key} {value}" for key, value in _flat(facts["figures"]))
    yield "files", "whole: all checksums fit" if facts["checksums"] == "ok" else "no checksums are given"


def _range(interval: tuple[float, float]) -> str:
    return f"{interval[0]:g} to {interval[1]:g}"


def _flat(figures: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in figures.items():
        if isinstance(value, Mapping):
            yield from ((f"{key} {inner}", each) for inner, each in _flat(value))
        else:
            yield key, value
