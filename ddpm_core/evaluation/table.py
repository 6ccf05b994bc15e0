"""A table of measurements on disk: one row a cell, each whole in itself, written after every cell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpm_core.errors import InvalidInput
from ddpm_core.whole import write_whole

Row = dict[str, Any]


class Table:
    """Rows in a JSON file.

    Args:
        path: the file; made with the first row, with its folders.

    Raises:
        InvalidInput: a file that is something else; it is left as it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        if path.exists():
            try:
                self.rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
            except (ValueError, KeyError, TypeError):
                message = f"{path} is not a table of measurements; give another file."
                raise InvalidInput("not_a_table", message, field="out", given=str(path)) from None

    def find(self, settings: Mapping[str, Any]) -> Row | None:
        """Give the row that was measured with these settings."""
        return next((row for row in self.rows if settings.items() <= row.items()), None)

    def add(self, row: Row) -> None:
        """Add a row; the file is replaced as a whole, so it is never half written."""
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, json.dumps({"rows": self.rows}, indent=2, ensure_ascii=False) + "\n")
