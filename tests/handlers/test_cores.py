"""Threads never outnumber the cores that a container may use."""

from __future__ import annotations

import os

import pytest

from handlers.cores import available_cores

OURS = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, OURS),
        ({"cpu.max": "max 100000"}, OURS),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "99900000 100000"}, OURS),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, OURS),
        ({"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_quota_counts_in_whole_cores(files, cores, tmp_path):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")

    assert available_cores(tmp_path) == cores
