"""How much memory this process may still use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def available_memory(root: Path = Path("/")) -> int:
    """Available bytes: the least of what the system has and what control groups (versions 1 and 2) allow."""
    return max(0, min([*_of_the_system(root), *_of_control_groups(root)], default=1 << 30))


def _of_the_system(root: Path) -> Iterator[int]:
    try:
        lines = (root / "proc/meminfo").read_text("ascii").splitlines()
        yield next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux: half of what there is
        if hasattr(os, "sysconf"):
            yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _of_control_groups(root: Path) -> Iterator[int]:
    groups = root / "sys/fs/cgroup"
    for limit, usage in (
        (groups / "memory.max", groups / "memory.current"),
        (groups / "memory/memory.limit_in_bytes", groups / "memory/memory.usage_in_bytes"),
    ):
        try:
            yield int(limit.read_text("ascii")) - int(usage.read_text("ascii"))
        except (OSError, ValueError):  # no such group, or "max"
            continue
