"""How much memory there is, and whether it has run out, where the system says so and where it does not."""

from __future__ import annotations

import os
from pathlib import Path

from asyncpar._platform.memory import available_memory
from asyncpar._processes.memory_watch import MemoryWatch


def test_the_least_of_what_the_system_and_the_group_leave_counts(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 8 kB\n")
    assert available_memory(tmp_path) == 8192
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("100\n")
    assert available_memory(tmp_path) == 8192
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("300\n")
    assert available_memory(tmp_path) == 200
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("500\n")
    assert available_memory(tmp_path) == 0


def test_a_system_that_does_not_say_what_is_available_has_half_of_its_memory(tmp_path: Path) -> None:
    assert available_memory(tmp_path) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def test_memory_has_run_out_when_the_systems_count_has_grown(tmp_path: Path) -> None:
    counters = tmp_path / "vmstat"
    counters.write_text("pgfault 9\noom_kill 3\n")
    watch = MemoryWatch(counters)
    assert not watch.ran_out()
    counters.write_text("pgfault 9\noom_kill 4\n")
    assert watch.ran_out()
    assert not watch.ran_out()


def test_where_the_count_is_hidden_nothing_is_claimed(tmp_path: Path) -> None:
    counters = tmp_path / "vmstat"
    watch = MemoryWatch(counters)
    assert not watch.ran_out()
    counters.write_text("oom_kill 4\n")
    assert not watch.ran_out()
    counters.unlink()
    assert not watch.ran_out()
