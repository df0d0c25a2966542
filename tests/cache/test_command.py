"""`python -m asyncpar cache`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from asyncpar import Memory
from asyncpar._cache.command import run

ROOT = Path(__file__).parents[2]


def square(x: int) -> int:
    return x * x


def zeros(count: int) -> bytes:
    return bytes(count)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    location = str(tmp_path / "cache")
    memory = Memory(location, verbose=0)
    squares = memory.cache(square)
    for x in (1, 2, 3, 3):
        squares(x)
    memory.cache(zeros)(100_000)
    assert memory._store is not None
    memory._store.tally.write()
    return location


def entries(folder: str) -> list[Path]:
    return sorted(Path(folder).glob("v1/*/??/*"))


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Any:
    assert run([*arguments, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_ls_lists_functions_and_entries(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    squares, other = run_json(capsys, "ls", folder)
    assert (squares["entries"], other["entries"]) == (3, 1)
    assert "square" in squares["function"]
    assert other["bytes"] > 100_000
    assert {len(entry["key"]) for entry in run_json(capsys, "ls", folder, "--entries")} == {40}
    assert run(["ls", folder]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["function", "entries", "bytes", "unused_seconds"]
    assert "97.8 KiB" in lines[2]


def test_stats_shows_hits(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    stats = run_json(capsys, "stats", folder)
    assert (stats["functions"], stats["entries"], stats["hits"], stats["misses"], stats["kept"]) == (2, 4, 1, 4, 4)
    assert stats["hit_rate"] == 0.2
    assert run(["stats", folder]) == 0
    assert "hit_rate   0.2" in capsys.readouterr().out


def test_verify_finds_and_removes_damaged_entries(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_json(capsys, "verify", folder) == {"entries": 4, "damaged": []}
    one, other, *_ = entries(folder)
    one.write_bytes(one.read_bytes()[:-1])
    os.replace(other, other.with_name("0" * 38))
    found = run_json(capsys, "verify", folder, status=1)
    assert sorted(damaged["problem"] for damaged in found["damaged"])[0] in (
        "it ends too early",
        "it is the entry of another call",
    )
    assert len(found["damaged"]) == 2
    assert run(["verify", folder, "--remove"]) == 1
    assert "4 entries, 2 damaged and removed" in capsys.readouterr().out
    assert len(entries(folder)) == 2


def test_verify_checks_signatures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Memory(tmp_path / "cache", verbose=0, key=b"k" * 32).cache(square)(3)
    (tmp_path / "key").write_bytes(b"k" * 32)
    folder = str(tmp_path / "cache")
    assert run_json(capsys, "verify", folder, "--key-file", str(tmp_path / "key"))["damaged"] == []
    assert run_json(capsys, "verify", folder, status=1)["damaged"][0]["problem"] == "it is signed, and there is no key"


def test_prune_keeps_to_limits(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    for path in entries(folder):
        if path.stat().st_size < 1000:
            os.utime(path, (time.time() - 1000,) * 2)
    pruned = run_json(capsys, "prune", folder, "--items", "2")
    assert (pruned["removed"], pruned["entries"]) == (2, 2)
    assert run(["prune", folder, "--age", "10m"]) == 0
    assert "removed 1 entries" in capsys.readouterr().out
    assert run_json(capsys, "prune", folder, "--bytes", "10K")["entries"] == 0
    assert run_json(capsys, "stats", folder)["hits"] == 1


@pytest.mark.parametrize("arguments", [["--bytes", "many"], ["--age", "soon"]])
def test_wrong_limits_are_refused(folder: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["prune", folder, *arguments])
    assert "such as" in capsys.readouterr().err
    assert run(["prune", folder]) == 2


def test_clear_asks_first(folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert run(["clear", folder]) == 2
    assert "pass --yes" in capsys.readouterr().err
    assert len(entries(folder)) == 4
    assert run(["clear", folder, "--yes"]) == 0
    assert entries(folder) == []
    assert Memory(folder, verbose=0).cache(square)(3) == 9


def test_a_folder_that_is_no_cache_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run(["clear", str(tmp_path), "--yes"]) == 1
    assert "is no cache" in capsys.readouterr().err
    assert (tmp_path / "file").exists()


def test_it_is_a_command(folder: str) -> None:
    command = [sys.executable, "-m", "asyncpar"]
    done = subprocess.run([*command, "cache", "stats", folder], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1].split() == ["entries", "4"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 2


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    Memory(tmp_path, verbose=0).cache(str.upper)("a")
    (entry,) = tmp_path.rglob("??/" + "?" * 38)
    (entry.parent / ("a" * 38)).mkdir()
    (entry.parent / ("b" * 38)).symlink_to("/")
    assert run(["verify", str(tmp_path), "--remove"]) == 0
    assert run(["prune", str(tmp_path), "--items", "0"]) == 0
    assert sorted(path.name[0] for path in entry.parent.iterdir()) == ["a", "b"]
