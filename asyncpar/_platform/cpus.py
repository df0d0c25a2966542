"""How many processors this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

from asyncpar._basics.validation import is_positive_int, to_count


def cpu_count(only_physical_cores: bool = False) -> int:
    """Processors that this process may use: the least of affinity, cgroup quota (rounded up) and LOKY_MAX_CPU_COUNT.

    Args:
        only_physical_cores: count processors that share a core as one, if the system says which ones do (Linux).

    Raises:
        ValueError: LOKY_MAX_CPU_COUNT in the environment is not a number.

    >>> import asyncpar
    >>> asyncpar.cpu_count() >= 1
    True
    """
    processors = _processors()
    count = len(processors)
    if only_physical_cores:
        count = _cores(processors, Path("/sys/devices/system/cpu")) or count
    limits = [count, *_cgroup_quotas(Path("/sys/fs/cgroup"))]
    environment = os.environ.get("LOKY_MAX_CPU_COUNT")
    if environment is not None:
        try:
            limits.append(int(environment))
        except ValueError:
            raise ValueError(f"LOKY_MAX_CPU_COUNT must be a number of processors, not {environment!r}") from None
    return max(1, min(limits))


def resolve_max_workers(max_workers: int | None) -> int:
    """How many workers an executor may have: `max_workers`, or one for each processor.

    Raises:
        ValueError: it is less than one, or not an integer.
    """
    if max_workers is None:
        return cpu_count()
    if not is_positive_int(max_workers):
        raise ValueError(f"max_workers must be at least 1, or None for one per processor, not {max_workers!r}")
    return to_count(max_workers)


def resolve_n_jobs(n_jobs: int) -> int:
    """Negative `n_jobs` counts back from the processors, as in joblib: -1 is all of them, -2 all but one."""
    count = to_count(n_jobs)
    return count if count > 0 else max(1, cpu_count() + 1 + count)


def _processors() -> set[int]:
    """The numbers of the processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _cores(processors: set[int], root: Path) -> int | None:
    """How many cores the processors belong to, or None if the system does not say."""
    try:
        return len({(root / f"cpu{number}" / "topology" / "thread_siblings_list").read_text("ascii") for number in processors})
    except OSError:
        return None


def _cgroup_quotas(root: Path) -> list[int]:
    """How many processors' worth of time cgroup v2 or v1 allows per period, if it limits that."""
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
    quota, period = (root / "cpu.max").read_text("ascii").split()
    return int(quota), int(period)


def _quota_v1(root: Path) -> tuple[int, int]:
    folder = root / "cpu"
    return int((folder / "cpu.cfs_quota_us").read_text("ascii")), int((folder / "cpu.cfs_period_us").read_text("ascii"))
