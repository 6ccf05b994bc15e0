"""The house holds: who may import whom. The picture is in CONTRIBUTING.md."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("ddpm_core", "ddpm_api", "ddpm_service", "handlers")

CORE = {
    "errors": set(),
    "whole": set(),
    "writer": {"errors"},
    "pixels": set(),
    "events": {"pixels"},
    "schedule": {"clip", "errors"},
    "timing": set(),
    "device": set(),
    "room": set(),
    "precision": set(),
    "transfer": set(),
    "curve": set(),
    "domain": set(),
    "layers": set(),
    "bands": set(),
    "grids": {"bands"},
    "clip": {"errors"},
    "denoiser": {"bands", "grids", "layers", "schedule", "timing"},
    "guidance": set(),
    "unet": {"errors"},
    "cascade": {"schedule"},
    "faces": {"domain", "errors"},
    "sampling": {"denoiser", "guidance", "schedule", "transfer"},
    "bundle": {"bands", "cascade", "denoiser", "domain", "errors", "sampling", "schedule", "unet", "whole"},
    "gate": {"bundle", "denoiser", "guidance", "sampling"},
    "tone": {"bundle", "guidance"},
    "plan": {"bundle", "curve", "errors", "gate", "pixels", "sampling", "schedule", "tone"},
    "wholeness": {"bundle", "denoiser", "gate"},
    "ranking": {"bundle", "denoiser", "wholeness", "guidance"},
    "pace": {"denoiser", "device", "timing"},
    "runner": {"denoiser", "device", "plan", "room", "sampling"},
    "leaving": {"pixels", "ranking", "sampling", "transfer"},
    "flight": {"plan", "transfer"},
    "engine": {
        "bundle",
        "denoiser",
        "device",
        "errors",
        "events",
        "flight",
        "leaving",
        "plan",
        "ranking",
        "room",
        "runner",
    },
    "dtypes": {"bundle", "denoiser", "device", "pixels", "plan", "sampling", "timing"},
    "graphs": {"bundle", "denoiser", "dtypes", "timing"},
    "pipeline": {"bundle", "denoiser", "dtypes", "errors", "faces", "gate", "pixels", "plan", "precision", "sampling"},
}
"""Module of the core → what of the core it may import. Training, evaluation and data may import all of it."""
SUPPORT = {"training", "evaluation", "data", "importers"}


def modules() -> list[Path]:
    return sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Give the dotted names that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def top(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def room(path: Path) -> str:
    """Give the module or subpackage of the core that a file belongs to."""
    return path.relative_to(ROOT / "ddpm_core").parts[0].removesuffix(".py")


def packages(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_import_only_what_they_may(path: Path) -> None:
    imported = packages(imports(path))
    allowed = {
        "ddpm_core": {"ddpm_core"},
        "ddpm_api": {"ddpm_api"},
        "handlers": {"handlers", "ddpm_core", "ddpm_api"},
        "ddpm_service": {"ddpm_service", "ddpm_api"},
    }[top(path)]
    if "cli" in path.parts:
        allowed = allowed | {"ddpm_core"}
    assert imported & set(OURS) <= allowed
    if top(path) == "ddpm_core":
        assert not imported & {"ts", "fastapi", "starlette", "flask", "uvicorn", "grpc", "requests"}
    if top(path) in ("ddpm_api", "ddpm_service") and "cli" not in path.parts:
        assert not imported & {"torch", "diffusers"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_measures_is_never_in_the_service(path: Path) -> None:
    imported = imports(path)
    if "dlib" in packages(imported) or "face_recognition_models" in packages(imported):
        assert path == ROOT / "ddpm_core" / "evaluation" / "face_network.py"
    if top(path) == "handlers" or (top(path) == "ddpm_service" and "cli" not in path.parts):
        assert not any(name.startswith("ddpm_core.evaluation") for name in imported)


@pytest.mark.parametrize(
    "path", [p for p in modules() if top(p) == "ddpm_service"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_commands_import_the_core_only_inside_the_command(path: Path) -> None:
    outermost = ast.parse(path.read_text(encoding="utf-8")).body
    names = {
        name
        for node in outermost
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    }
    assert not packages(names) & {"ddpm_core", "torch", "diffusers"}


@pytest.mark.parametrize(
    "path", [p for p in modules() if top(p) == "ddpm_core"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_the_core_is_layered(path: Path) -> None:
    here = room(path)
    imported = {name.split(".")[1] for name in imports(path) if name.startswith("ddpm_core.")}
    if here in SUPPORT or here == "__init__":
        return
    assert here in CORE, f"{here} has no place in the picture: give it one here and in CONTRIBUTING.md"
    assert imported <= CORE[here] | {here}
