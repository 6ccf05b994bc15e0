"""A run and a prepared set have one writer at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpm_core.data.prepare import prepare
from ddpm_core.errors import InvalidInput
from ddpm_core.training.recipe import Recipe
from ddpm_core.training.run import RECIPE, resume, train
from ddpm_core.writer import only_writer_of_folder


def test_a_run_that_is_under_way_is_neither_resumed_nor_begun_anew(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with only_writer_of_folder(run):
        with pytest.raises(InvalidInput, match="is being written by process"):
            train(tmp_path, run, Recipe())
        (run / RECIPE).write_text("steps: 1\n")
        with pytest.raises(InvalidInput, match="is being written by process") as refusal:
            resume(run)
    assert (refusal.value.code, refusal.value.field) == ("held", "run")


def test_a_set_that_is_being_prepared_is_not_prepared_twice(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with only_writer_of_folder(tmp_path / "set"), pytest.raises(InvalidInput, match="is being written by process"):
        prepare(tmp_path / "pictures", tmp_path / "set", 16)
