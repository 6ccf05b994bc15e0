"""The figures as tables, on the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ddpm_core.evaluation.likeness.frontier import against_the_origin, frontier, made, nearer_than_unguided
from ddpm_core.evaluation.table import Row

Lines = list[list[str]]

_COLUMNS = (
    ("method", "method", ""),
    ("calls", "num_inference_steps", "d"),
    ("n", "images", "d"),
    ("low-pass 16", "low_pass_16", ".3f"),
    ("of all", "low_pass_16_all", ".3f"),
    ("32", "low_pass_32", ".3f"),
    ("ssim", "ssim", ".2f"),
    ("cosine", "feature_cosine", ".2f"),
    ("landmarks", "landmarks", ".3f"),
    ("copies", "copies", ".1%"),
    ("distance", "copy_distance", ".2f"),
    ("least", "copy_distance_least", ".2f"),
    ("kid", "denoiser_kid", ".2f"),
    ("±", "denoiser_kid_standard_error", ".2f"),
    ("fréchet", "denoiser_frechet", ".0f"),
    ("precision", "denoiser_precision", ".2f"),
    ("wavelet kid", "wavelet_kid", ".2f"),
    ("nearest", "nearest_real", ".2f"),
    ("faces", "face_found", ".0%"),
)
_OF_FACES = (
    ("method", "method", ""),
    ("whole faces", "whole_faces", ".0%"),
    ("identity", "identity_distance", ".2f"),
    ("of all", "identity_distance_all", ".2f"),
    ("uneven", "face_asymmetry", ".3f"),
    ("kid", "face_kid", ".2f"),
    ("±", "face_kid_standard_error", ".2f"),
    ("fréchet", "face_frechet", ".0f"),
    ("precision", "face_precision", ".2f"),
    ("recall", "face_recall", ".2f"),
)
"""Heading, key and form of each column."""

_WHAT_FACES_SAY = (
    "whole faces: share that dlib's detector scores above 1; real ones do not all reach it. identity: distance to the "
    "selfie's person, below 0.6 mostly the same one; of images that are no copies, but for `of all`. uneven: median "
    "distance of landmarks from those in a mirror, in distances of the eyes; turned faces are uneven too. kid, "
    "fréchet, precision, recall: in the network's 128 numbers, against real faces."
)


def table(rows: Sequence[Row]) -> tuple[list[str], Lines]:
    """Give the headings, and a line of words a row; those on the frontier are marked with a star."""
    best = frontier(rows)
    lines = []
    for row in rows:
        line = [_words(row.get(key), form) for _, key, form in _COLUMNS]
        if row in made(rows):
            won = nearer_than_unguided(row, rows)
            line += [
                "" if won is None else f"{won[0]}/{won[1]}",
                _words(against_the_origin(row, rows), ".2f"),
                "*" if row in best else "",
            ]
        lines.append(line + [""] * (len(_COLUMNS) + 3 - len(line)))
    return [*(heading for heading, *_ in _COLUMNS), "nearer", "÷ origin", ""], lines


def face_table(rows: Sequence[Row]) -> tuple[list[str], Lines]:
    """Give headings and lines of what the face network saw; no lines where it has not looked at every row."""
    seen = rows if all("face_network" in row for row in rows) else ()
    return [heading for heading, *_ in _OF_FACES], [
        [_words(row.get(key), form) for _, key, form in _OF_FACES] for row in seen
    ]


def by_target(rows: Sequence[Row], key: str) -> tuple[list[str], Lines]:
    """Give one figure of every photograph by every method; `c` marks copies. Aligned faces are one line, their mean."""
    shown = made(rows)
    places: dict[str, list[int]] = {}
    for i, target in enumerate(shown[0]["by_target"]):
        without = "" if target["face"] else " (no face)"
        places.setdefault("aligned faces" if target["aligned"] else target["target"] + without, []).append(i)
    lines = []
    for name, indices in places.items():
        line = [name]
        for row in shown:
            seen = [row["by_target"][i] for i in indices]
            mean = sum(target[key] for target in seen) / len(seen)
            line.append(f"{mean:.3f}" + (" c" if any(target["copies"] for target in seen) else ""))
        lines.append(line)
    return ["target", *(row["method"] for row in shown)], lines


def write_report(rows: Sequence[Row], picture: str, out: Path) -> None:
    """Write the tables as Markdown, with what they were measured with, the picture of that name between them."""
    last = rows[-1]
    parts = [
        f"# Resemblance and realism: {last['model']} {last['version']}",
        describe(rows),
        f"![resemblance against realism]({picture})",
        markdown(*table(rows)),
        "low-pass: root mean square difference to the target in [−1, 1] at 16 and 32 cells; it, ssim, cosine and "
        "landmarks are of images that are no copies, but for `of all`. distance, least: median and least of 1 − "
        f"correlation of detail with the target; below {last['copy_threshold']:.2f} an image is a copy. kid, fréchet, "
        "precision: in the model's own features, against real faces. nearest: distance to the nearest real face, 1 for "
        "real ones. faces: where one is recognised. nearer: on how many targets than unguided images. ÷ origin: `of "
        "all` in parts of that of `pixel` at the same kid. *: on the frontier.",
        "## Low-pass 16 by target (c: a copy among them)",
        markdown(*by_target(rows, "low_pass_16")),
        "## Distance to the nearest real face by target (1: as real ones)",
        markdown(*by_target(rows, "nearest_real")),
    ]
    headings, lines = face_table(rows)
    if lines:
        parts += ["## By a face network", markdown(headings, lines), _WHAT_FACES_SAY]
        parts += ["## Share of whole faces by target", markdown(*by_target(rows, "whole_faces"))]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def describe(rows: Sequence[Row]) -> str:
    """Say in a line what the figures depend on."""
    row = rows[-1]
    return (
        f"{row['model']} {row['version']} at {row['image_size']} px, weights {row['weights_sha256'][:16]}, "
        f"{row['dtype']}; {row['targets_with_face']} targets with a face of {row['targets']}, "
        f"{row['targets_fingerprint']}, {row['images_a_target']} images each; real faces: {row['reference_images']}, "
        f"{row['reference']}, {row['reference_fingerprint']}; seed {row['seed']}"
    )


def markdown(headings: Sequence[str], lines: Lines) -> str:
    """Write a table as Markdown."""
    rows = [headings, ["---"] * len(headings), *lines]
    return "\n".join("| " + " | ".join(cell or " " for cell in row) + " |" for row in rows)


def _words(value: object, form: str) -> str:
    return "" if value is None else format(value, form)
