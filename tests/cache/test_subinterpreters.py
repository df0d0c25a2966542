"""Where blake3 does not load, as in subinterpreters, the cache works all the same, and no result is mistaken for another."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from asyncpar import CacheWarning, Memory
from asyncpar._cache import digests, entries
from asyncpar._cache.keys import Keyer

ROOT = Path(__file__).parents[2]
LONG = digests.LONG_BYTES

calls: list[Any] = []


@pytest.fixture(autouse=True)
def no_calls_yet() -> None:
    calls.clear()


def zeros(count: int) -> bytes:
    calls.append(count)
    return bytes(count)


def length(data: bytes) -> int:
    calls.append(len(data))
    return len(data)


@contextmanager
def without_blake3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for module in (digests, entries):
            patch.setattr(module, "own_method", lambda: digests.BLAKE2B)
        yield


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "cache", verbose=0)


@pytest.mark.parametrize("count", [10, LONG - 1])
def test_short_data_has_the_same_digest_everywhere(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    before = digests.digest(bytes(count)), Keyer(length).key((bytes(count - 10),), {})
    with without_blake3(monkeypatch):
        assert (digests.digest(bytes(count)), Keyer(length).key((bytes(count - 10),), {})) == before


@pytest.mark.parametrize("count", [LONG, 1 << 23])
def test_long_data_has_a_digest_without_blake3_too(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    before = digests.digest(bytes(count))
    with without_blake3(monkeypatch):
        assert digests.digest(bytes(count)) == digests.digest_in_pieces([bytes(count)], count) != before
        with pytest.raises(digests.DigestUnavailableError):
            digests.digest(bytes(count), digests.BLAKE3)
    assert digests.digest(bytes(count)) == before


def test_a_long_result_is_found_everywhere_once_it_was_kept_without_blake3(
    monkeypatch: pytest.MonkeyPatch, memory: Memory
) -> None:
    cached = memory.cache(zeros)
    cached(LONG)
    with without_blake3(monkeypatch):
        with pytest.warns(CacheWarning, match="not used, but replaced"):
            assert cached(LONG) == bytes(LONG)  # whose checksum cannot be seen to be right
        assert cached(LONG) == bytes(LONG)
        assert calls == [LONG] * 2
    assert cached(LONG) == bytes(LONG)
    assert calls == [LONG] * 2


def test_a_damaged_entry_of_either_method_is_seen(monkeypatch: pytest.MonkeyPatch, memory: Memory, tmp_path: Path) -> None:
    cached = memory.cache(zeros)

    def damage() -> None:
        (path,) = tmp_path.rglob("??/" + "?" * 38)
        data = bytearray(path.read_bytes())
        data[-100] ^= 1
        path.write_bytes(data)

    with without_blake3(monkeypatch):
        cached(LONG)
    damage()
    with pytest.warns(CacheWarning, match="damaged"):
        assert cached(LONG) == bytes(LONG)
    assert calls == [LONG] * 2


MEASURED = """
    from asyncpar import Memory

    calls = []

    def zeros(count):
        calls.append(count)
        return bytes(count)

    def length(data):
        calls.append(len(data))
        return len(data)

    def ask(location):
        memory = Memory(location, verbose=0)
        for _ in range(2):
            assert memory.cache(length)(b"short") == 5
            assert memory.cache(length)(bytearray(100_000)) == 100_000
            assert memory.cache(zeros)(100_001) == bytes(100_001)
        return calls
"""
PROGRAM = """
    import sys
    from concurrent import interpreters
    import measured

    location = sys.argv[1]
    measured.Memory(location, verbose=0).cache(measured.length)(b"short")
    inner = interpreters.create()
    inner.exec(f"import sys; sys.path[:] = {sys.path!r}; import measured; print(measured.ask({location!r}), flush=True)")
    inner.close()
    print(measured.ask(location))
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="needs concurrent.interpreters")
def test_the_cache_works_in_a_subinterpreter(tmp_path: Path) -> None:
    (tmp_path / "measured.py").write_text(textwrap.dedent(MEASURED))
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path / "cache")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50)
    assert done.stdout.splitlines() == ["[100000, 100001]", "[5, 100000]"], done.stderr  # a long argument has two keys
