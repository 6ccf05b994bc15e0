"""How many processor cores this process may really use."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_cores(cgroup: Path = _CGROUP) -> int:
    """Give the whole cores that affinity and the container's quota leave us, at least 1.

    More threads than that are throttled together: each network call then takes many times as long.
    """
    quotas = [_ratio(*_words(cgroup / "cpu.max"))]  # version 2: quota and period in one file
    quotas.append(_ratio(*_words(cgroup / "cpu/cpu.cfs_quota_us"), *_words(cgroup / "cpu/cpu.cfs_period_us")))
    return max(1, min([len(os.sched_getaffinity(0)), *(quota for quota in quotas if quota is not None)]))


def _words(file: Path) -> list[str]:
    return file.read_text().split() if file.is_file() else []


def _ratio(quota: str = "max", period: str = "0") -> int | None:
    """Whole cores; None where the quota says there is no limit (`max`, or -1 in version 1)."""
    return int(quota) // int(period) if quota.isdecimal() and int(period) else None
