"""Writing a file whole or not at all."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a text file aside, then rename it; what is no UTF-8 in a file's name is written as its escape."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text, encoding="utf-8", errors="backslashreplace")
    aside.replace(path)
