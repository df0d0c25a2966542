"""How many processors there are for us: affinity, cgroups and the environment, whichever is least."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpar import cpu_count
from asyncpar._platform.cpus import _cgroup_quotas, _cores, resolve_n_jobs


def test_affinity_bounds_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr("asyncpar._platform.cpus._cgroup_quotas", lambda root: [])
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)
    assert cpu_count() == 4
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    assert cpu_count() == 2


def test_processors_that_share_a_core_may_count_as_one(tmp_path: Path) -> None:
    for number, siblings in enumerate(["0-1", "0-1", "2-3", "2-3"]):
        topology = tmp_path / f"cpu{number}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(siblings)
    assert _cores({0, 1, 2, 3}, tmp_path) == 2
    assert _cores({0, 2}, tmp_path) == 2
    assert _cores({0, 1}, tmp_path) == 1
    assert _cores({7}, tmp_path) is None
    assert 1 <= cpu_count(only_physical_cores=True) <= cpu_count()


def test_a_limit_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "few")
    with pytest.raises(ValueError, match="LOKY_MAX_CPU_COUNT must be a number of processors, not 'few'"):
        cpu_count()


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
    monkeypatch.setattr("asyncpar._platform.cpus.cpu_count", lambda: 4)
    assert resolve_n_jobs(n_jobs) == workers
