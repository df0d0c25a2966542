"""What happens between a miss and the entry: each step may fail, be cut short, or be the last one of its process."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncpar import CacheWarning, Memory
from asyncpar._cache import beside
from asyncpar._cache.cached import shelf_of
from asyncpar._cache.serializers import OUT_OF_BAND_BYTES, PICKLE
from asyncpar._cache.store import _JOINED_BYTES

ROOT = Path(__file__).parents[2]

calls: list[Any] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "cache", verbose=0)


def square(x: int) -> int:
    calls.append(x)
    return x * x


async def asquare(x: int) -> int:
    calls.append(x)
    return x * x


def entries(folder: Path) -> list[Path]:
    return list(folder.glob("cache/v1/*/??/*"))


def unfinished(folder: Path) -> list[Path]:
    return list(folder.glob("cache/v1/new/*"))


def run(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    script = folder / "program.py"
    script.write_text(textwrap.dedent(program))
    return subprocess.run([sys.executable, script, str(folder)], env=environment, text=True, capture_output=True, timeout=50)


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
def test_a_step_that_fails_costs_only_the_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    memory = Memory(tmp_path / "cache", verbose=0, durable=True)
    cached = memory.cache(square)
    assert cached(2) == 4
    right: Callable[..., Any] = getattr(os, step)

    def fail(*arguments: Any) -> Any:
        if step == "open" and f"{os.sep}new{os.sep}" not in str(arguments[0]):
            return right(*arguments)
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(os, step, fail)
    with pytest.warns(CacheWarning, match="the disk is broken"):
        assert cached(3) == 9
    monkeypatch.undo()
    assert len(entries(tmp_path)) == 1
    assert unfinished(tmp_path) == []
    assert shelf_of(cached).store.locks._users == 0
    assert [cached(3), cached(3)] == [9, 9]
    assert calls == [2, 3, 3]


@pytest.mark.parametrize("length", [0, 1, 100, 1000])
def test_a_write_that_is_cut_short_goes_on(memory: Memory, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    right = os.write
    text = "abc" * 200

    def write_some(fd: int, data: bytes) -> int:
        return right(fd, data[:length])

    cached = memory.cache(lambda: text)
    monkeypatch.setattr(os, "write", write_some)
    assert cached() == text
    monkeypatch.undo()
    found = shelf_of(cached).look_up(shelf_of(cached).key((), {}), ((), {}))
    assert found is not None
    assert found.value == text


@pytest.mark.parametrize("size", [0, 1, _JOINED_BYTES - 200, _JOINED_BYTES, _JOINED_BYTES + 1, 3 << 20])
def test_entries_of_all_sizes_are_whole(memory: Memory, size: int) -> None:
    np = pytest.importorskip("numpy")
    data = np.random.default_rng(size).bytes(size)
    value = {"bytes": data, "array": np.frombuffer(data, np.uint8)}
    cached = memory.cache(lambda size: value, verbose=0)
    cached(size)
    found = cached(size)
    assert found["bytes"] == data
    assert (found["array"] == value["array"]).all()


@pytest.mark.parametrize(
    "value", [3, "text", [1, [2.5, None]], {"a": b"x" * 100_000}, lambda: 3], ids=lambda value: type(value).__name__
)
def test_what_is_packed_at_once_is_what_is_packed_in_pieces(value: Any) -> None:
    at_once, in_pieces = PICKLE.pack(value), PICKLE.pack(value, breathe=True)
    assert bytes(at_once.body) == bytes(in_pieces.body)
    assert at_once.buffers == in_pieces.buffers == []


def test_large_buffers_stay_beside_the_pickle_and_small_ones_do_not() -> None:
    np = pytest.importorskip("numpy")
    packed = PICKLE.pack([np.zeros(OUT_OF_BAND_BYTES, np.uint8), np.zeros(OUT_OF_BAND_BYTES - 1, np.uint8)])
    assert [len(buffer) for buffer in packed.buffers] == [OUT_OF_BAND_BYTES]
    assert len(packed.body) > OUT_OF_BAND_BYTES - 1


def test_an_entry_is_on_the_disk_before_it_has_its_name_and_so_is_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = Memory(tmp_path / "cache", verbose=0, durable=True).cache(square)
    steps: list[str] = []

    def note(name: str, right: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            steps.append(name)
            return right(*arguments)

        return step

    for name in ("write", "fsync", "replace"):
        monkeypatch.setattr(os, name, note(name, getattr(os, name)))
    shelf_of(cached).store.write(shelf_of(cached).folder, b"k" * 20, 3, 0.1)
    assert steps == ["write", "fsync", "replace", "replace", "fsync"]  # the first time, the folder has to be made


async def test_a_result_that_another_process_keeps_just_before_the_claim_is_not_computed(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for twin in (memory.cache(square), memory.cache(asquare)):
        shelf = shelf_of(twin)
        claim = shelf.claim

        def keep_and_claim(key: bytes, shelf: Any = shelf, claim: Any = claim) -> Any:
            shelf.store.write(shelf.folder, key, "theirs", 0.1)
            return claim(key)

        monkeypatch.setattr(shelf, "claim", keep_and_claim)
        assert (await twin.acall(3)) == "theirs"
    assert calls == []


CLAIMS = """
    import os, sys
    from asyncpar._cache.locks import locks_of

    locks = locks_of(sys.argv[1])
    first, second = (locks.try_claim(bytes([number]) * 20) for number in (1, 2))

    def free_for_others():
        child = os.fork()
        if not child:
            claims = [locks.try_claim(bytes([number]) * 20) for number in (1, 2)]
            os._exit(sum(2**place for place, claim in enumerate(claims) if claim is not None))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    print(free_for_others())
    first.release()
    print(free_for_others())
    first = locks.try_claim(bytes([1]) * 20)
    second.release()
    print(free_for_others())
    first.release()
    print(free_for_others(), locks._fd)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_each_claim_is_given_back_by_itself_and_the_last_one_with_the_file(tmp_path: Path) -> None:
    assert run(tmp_path, CLAIMS).stdout.split() == ["0", "1", "2", "3", "None"]


KILLED = """
    import os, signal, sys
    from asyncpar import Memory

    def square(x):
        return x * x

    cached = Memory(sys.argv[1] + "/cache", verbose=0).cache(square)
    if {step!r}:
        cached(2)
        right = getattr(os, {step!r})

        def die(*arguments):
            if {step!r} == "open" and "/new/" not in arguments[0]:
                return right(*arguments)
            if {after}:
                right(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(os, {step!r}, die)
    print(cached(3))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs SIGKILL")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ["open", "write", "close", "replace"])
def test_a_process_that_is_killed_at_any_step_leaves_a_whole_entry_or_none(tmp_path: Path, step: str, after: bool) -> None:
    assert run(tmp_path, KILLED.format(step=step, after=after)).returncode == -signal.SIGKILL
    is_kept = step == "replace" and after
    assert len(entries(tmp_path)) == 1 + is_kept
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(tmp_path, KILLED.format(step="", after=False)).stdout == "9\n"  # and no lock is in its way
    assert len(entries(tmp_path)) == 2


def put_a_pipe(path: Path) -> None:
    os.mkfifo(path)


def put_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("name", ["tally", "pruned"])
@pytest.mark.parametrize("put", [put_a_pipe, put_a_device])
def test_what_is_no_file_in_the_place_of_one_is_refused_and_named(
    tmp_path: Path, name: str, put: Callable[[Path], None]
) -> None:
    cached = Memory(tmp_path / "cache", verbose=0, size_limit=10**6, age_limit=1e-6).cache(square)
    path = tmp_path / "cache" / "v1" / name
    path.parent.mkdir(mode=0o700, parents=True)
    put(path)
    with pytest.warns(CacheWarning, match=f"{name} is no ordinary file") as warned:
        assert [cached(3), cached(4)] == [9, 16]
    assert len(warned) == 1
    assert warned[0].filename == __file__


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_that_somebody_reads_gets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tally"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.warns(CacheWarning, match="pipe"), pytest.raises(OSError, match="no file"):
            beside.open_beside(str(path), os.O_WRONLY)
    finally:
        os.close(reader)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_in_the_place_of_the_locks_holds_up_nobody(memory: Memory, tmp_path: Path) -> None:
    cached = memory.cache(square)
    path = tmp_path / "cache" / "v1" / "locks"
    path.parent.mkdir(mode=0o700, parents=True)
    os.mkfifo(path)
    assert [cached(3), cached(3)] == [9, 9]
    assert calls == [3]
