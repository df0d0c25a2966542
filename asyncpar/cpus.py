"""How many processors this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path


def cpu_count() -> int:
    """Processors that this process may use: the least of affinity, cgroup quota (rounded up) and LOKY_MAX_CPU_COUNT.

    >>> import asyncpar
    >>> asyncpar.cpu_count() >= 1
    True
    """
    limits = [_affinity(), *_cgroup_quotas(Path("/sys/fs/cgroup"))]
    environment = os.environ.get("LOKY_MAX_CPU_COUNT")
    if environment is not None:
        limits.append(int(environment))
    return max(1, min(limits))


def resolve_max_workers(max_workers: int | None) -> int:
    """How many workers an executor may have: `max_workers`, or one for each processor.

    Raises:
        ValueError: fewer than one.
    """
    if max_workers is None:
        return cpu_count()
    if max_workers < 1:
        raise ValueError(f"max_workers must be at least 1, or None for one per processor, not {max_workers!r}")
    return max_workers


def resolve_n_jobs(n_jobs: int) -> int:
    """Negative `n_jobs` counts back from the processors, as in joblib: -1 is all of them, -2 all but one."""
    return n_jobs if n_jobs > 0 else max(1, cpu_count() + 1 + n_jobs)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroup_quotas(root: Path) -> list[int]:
    """Processors' worth of time per period that cgroup v2 or v1 allows, where it limits them."""
    limits = []
    for read in (_quota_v2, _quota_v1):
        try:
            quota, period = read(root)
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if quota > 0 and period > 0:
            limits.append(math.ceil(quota / period))
    return limits


def _quota_v2(root: Path) -> tuple[int, int]:
    quota, period = (root / "cpu.max").read_text().split()
    return int(quota), int(period)


def _quota_v1(root: Path) -> tuple[int, int]:
    folder = root / "cpu"
    return int((folder / "cpu.cfs_quota_us").read_text()), int((folder / "cpu.cfs_period_us").read_text())
