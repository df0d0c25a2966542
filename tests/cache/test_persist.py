"""`dump`, `load` and `hash`."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import asyncpar
from asyncpar import dump, load


@dataclasses.dataclass
class Holder:
    array: Any
    frame: Any


ARRAY = np.arange(100_000.0)
VALUE = [ARRAY, np.asfortranarray(ARRAY.reshape(100, -1)), Holder(ARRAY[:50_000], pd.DataFrame({"a": ARRAY})), "text"]


def check(found: Any) -> None:
    assert np.array_equal(found[0], ARRAY)
    assert found[1].flags.f_contiguous
    assert np.array_equal(found[2].array, ARRAY[:50_000])
    assert found[2].frame["a"].sum() == ARRAY.sum()
    assert found[3] == "text"


@pytest.mark.parametrize("as_path", [str, Path])
def test_a_value_comes_back(tmp_path: Path, as_path: Any) -> None:
    path = as_path(tmp_path / "value")
    assert dump(VALUE, path) == [str(path)]
    check(load(path))
    assert [file.name for file in tmp_path.iterdir()] == ["value"]


@pytest.mark.parametrize("suffix", [".z", ".gz", ".bz2", ".xz", ".lzma", ".lz4", ".zst"])
def test_the_suffix_decides_about_the_compression(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"value{suffix}"
    try:
        dump(VALUE, path)
    except ValueError as error:
        pytest.skip(str(error))
    check(load(path))
    dump(VALUE, tmp_path / "plain")
    assert path.stat().st_size < (tmp_path / "plain").stat().st_size


def test_an_open_file_takes_several_values(tmp_path: Path) -> None:
    with (tmp_path / "values").open("wb") as file:
        assert dump(VALUE, file) is None
        dump("next", file, compress=3)
    with (tmp_path / "values").open("rb") as file:
        check(load(file))
        assert load(file) == "next"
    with pytest.warns(UserWarning, match="no effect on an open file"):
        assert load(io.BytesIO((tmp_path / "values").read_bytes()), mmap_mode="r")[3] == "text"


def test_any_array_is_mapped_also_inside_frames_and_dataclasses(tmp_path: Path) -> None:
    dump(VALUE, tmp_path / "value")
    found = load(tmp_path / "value", mmap_mode="r")
    check(found)
    arrays = [found[0], found[1], found[2].array, found[2].frame["a"].to_numpy()]
    assert not any(array.flags.writeable for array in arrays)
    assert all(array.ctypes.data % 64 == 0 for array in arrays)


def test_what_is_written_to_a_map_reaches_the_file_only_with_r_plus(tmp_path: Path) -> None:
    path = tmp_path / "value"
    dump(ARRAY, path)
    load(path, mmap_mode="c")[0] = 7
    assert load(path)[0] == 0
    load(path, mmap_mode="r+")[0] = 7
    assert load(path, mmap_mode="r")[0] == 7


def test_a_compressed_file_is_not_mapped_and_says_so(tmp_path: Path) -> None:
    dump(VALUE, tmp_path / "value", compress=True)
    with pytest.warns(UserWarning, match="because it is compressed"):
        check(load(tmp_path / "value", mmap_mode="r"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: b"", "written neither by asyncpar"),
        (lambda data: b"PK" + data, "written neither by asyncpar"),
        (lambda data: data[:50], "cannot be loaded: it is too short|ends too early"),
        (lambda data: data[:-10], "cannot be loaded: it ends too early"),
        (lambda data: data[:-10] + b"x" * 10, "cannot be loaded: the checksum of a buffer is wrong"),
        (lambda data: data[:120] + b"xx" + data[122:], "cannot be loaded: its checksum is wrong"),
        (lambda data: data[:40] + b"\x09" + data[41:], "has format 9"),
    ],
)
def test_foreign_and_damaged_files_are_refused_with_the_reason(tmp_path: Path, spoil: Any, message: str) -> None:
    path = tmp_path / "value"
    dump(ARRAY, path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        load(path)


def test_a_truncated_file_is_not_mapped(tmp_path: Path) -> None:
    path = tmp_path / "value"
    dump(ARRAY, path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="ends too early"):
        load(path, mmap_mode="r")


def test_a_failing_dump_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value"
    dump(1, path)
    with pytest.raises(TypeError, match="generator"):
        dump((x for x in [1]), path)
    with pytest.raises(FileNotFoundError):
        dump(1, tmp_path / "missing" / "value")
    assert load(path) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["value"]


def test_wrong_parameters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="protocol is 5"):
        dump(1, tmp_path / "value", protocol=2)
    with pytest.raises(ValueError, match="mmap_mode"):
        load(tmp_path / "value", mmap_mode="x")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "value")


VALUES: dict[str, Any] = {
    "an array": ARRAY,
    "in Fortran order": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "of other bytes": np.arange(5, dtype=">i4"),
    "of objects": np.array([{"a": 1}, None, "text"], dtype=object),
    "empty": np.zeros((0, 3)),
    "a number": np.array(7),
    "twice": [ARRAY] * 2,
    "no array": {"text": "x" * 1000, "set": {1, 2}},
}


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_files_of_joblib_load(tmp_path: Path, value: Any, compress: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    joblib = pytest.importorskip("joblib")
    joblib.dump({"before": 1, "value": value, "after": 2}, tmp_path / "file", compress=compress)
    expected = joblib.load(tmp_path / "file")
    monkeypatch.setitem(sys.modules, "joblib", None)
    for loaded in [load(tmp_path / "file"), load(io.BytesIO((tmp_path / "file").read_bytes()))]:
        assert list(loaded) == ["before", "value", "after"]
        np.testing.assert_equal(loaded, expected)
        assert type(loaded["value"]) is type(expected["value"])
        if isinstance(value, np.ndarray):
            assert loaded["value"].dtype == expected["value"].dtype
            assert loaded["value"].flags.f_contiguous == expected["value"].flags.f_contiguous


@pytest.mark.parametrize("mode", ["r", "c", "r+", "w+"])
def test_arrays_of_joblibs_files_are_mapped(tmp_path: Path, mode: str) -> None:
    joblib = pytest.importorskip("joblib")
    joblib.dump([ARRAY, ARRAY + 1], tmp_path / "file")
    mapped = load(tmp_path / "file", mmap_mode=mode)
    assert all(isinstance(array, np.memmap) for array in mapped)
    assert np.array_equal(mapped, [ARRAY, ARRAY + 1])
    if mode != "r":
        mapped[1].flat[0] = -7
        mapped[1].flush()
    assert load(tmp_path / "file")[1].flat[0] == (-7 if mode in ("r+", "w+") else ARRAY.flat[0] + 1)
    joblib.dump(ARRAY, tmp_path / "file", compress=3)
    with pytest.warns(UserWarning, match="compressed"):
        assert np.array_equal(load(tmp_path / "file", mmap_mode=mode), ARRAY)


def test_a_file_of_joblib_that_has_been_cut_is_refused(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    joblib.dump(ARRAY, tmp_path / "file")
    (tmp_path / "file").write_bytes((tmp_path / "file").read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"is damaged, or was written neither .* nor by joblib"):
        load(tmp_path / "file")


def test_hash_is_a_text_that_depends_on_the_content_alone() -> None:
    assert asyncpar.hash({"a": [1], "b": {2, 3}}) == asyncpar.hash({"b": {3, 2}, "a": [1]})
    assert len(asyncpar.hash(1)) == 32
    assert len({asyncpar.hash(value) for value in (1, 1.0, True, "1", b"1", [1], (1,), None)}) == 8
    assert asyncpar.hash(ARRAY.reshape(10, -1)) != asyncpar.hash(np.asfortranarray(ARRAY.reshape(10, -1)))
    assert len(asyncpar.hash(1, hash_name="md5")) == 32 != len(asyncpar.hash(1, hash_name="sha1"))
    with pytest.raises(ValueError, match="unsupported hash"):
        asyncpar.hash(1, hash_name="none")
    with pytest.raises(TypeError, match="no stable key"):
        asyncpar.hash(x for x in [1])


def test_hash_tells_maps_from_arrays_unless_told_otherwise(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "map", ARRAY.dtype, "w+", shape=ARRAY.shape)
    mapped[:] = ARRAY
    assert asyncpar.hash(mapped) != asyncpar.hash(ARRAY)
    assert asyncpar.hash(mapped, coerce_mmap=True) == asyncpar.hash(ARRAY)


def test_the_cache_is_loaded_only_when_it_is_used() -> None:
    program = (
        "import sys; from asyncpar import Memory, load; import asyncpar._cache.cached\n"
        "print([name for name in ('asyncio', 'anyio', 'numpy', 'pandas', 'blake3', 'cloudpickle') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout == "[]\n"
