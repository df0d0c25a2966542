"""How many processors there are for us: affinity, cgroups and the environment, whichever is least."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpar import cpu_count
from asyncpar.cpus import _cgroup_quotas, resolve_n_jobs


def test_affinity_bounds_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr("asyncpar.cpus._cgroup_quotas", lambda root: [])
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)
    assert cpu_count() == 4
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    assert cpu_count() == 2


@pytest.mark.parametrize(("content", "quotas"), [("150000 100000", [2]), ("max 100000", []), ("50000 100000", [1])])
def test_a_cgroup_v2_quota_is_rounded_up(tmp_path: Path, content: str, quotas: list[int]) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert _cgroup_quotas(tmp_path) == quotas


@pytest.mark.parametrize(("quota", "quotas"), [("300000", [3]), ("-1", [])])
def test_a_cgroup_v1_quota_counts_too(tmp_path: Path, quota: str, quotas: list[int]) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert _cgroup_quotas(tmp_path) == quotas


@pytest.mark.parametrize(("n_jobs", "workers"), [(3, 3), (-1, 4), (-2, 3), (-4, 1), (-100, 1)])
def test_negative_n_jobs_count_back(monkeypatch: pytest.MonkeyPatch, n_jobs: int, workers: int) -> None:
    monkeypatch.setattr("asyncpar.cpus.cpu_count", lambda: 4)
    assert resolve_n_jobs(n_jobs) == workers
