"""Equal content has equal forms, in every process and version of Python; different content has different ones."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncpar
from asyncpar._cache.digests import digest, digest_in_pieces
from asyncpar._cache.forms import Forms, UnstableValueError
from asyncpar._cache.parts import parts_of
from tests.cache.values import MAKERS, Boat, Order, Pair, Plain, Point

ROOT = Path(__file__).parents[2]
RECORDED = Path(__file__).with_name("recorded_forms.json")  # made on Python 3.14
NOT_RECORDED = ("frame", "series", "index", "arrow", "timestamp")  # names of types differ between versions of the libraries


def form(value: Any, **options: Any) -> str:
    return Forms(parts_of, **options).form(value).hex()


def all_forms() -> dict[str, str]:
    return {name: form(make()) for name, make in MAKERS.items()}


@pytest.mark.parametrize("name", MAKERS)
def test_equal_values_have_equal_forms(name: str) -> None:
    assert form(MAKERS[name]()) == form(MAKERS[name]())


COPIED = [name for name in MAKERS if name not in ("memoryview", "bound built-in", "closure", "other closure")]


@pytest.mark.parametrize("name", COPIED)
def test_a_copy_has_the_form_of_the_original(name: str) -> None:
    value = MAKERS[name]()
    assert form(pickle.loads(pickle.dumps(value))) == form(value)


def test_different_values_have_different_forms() -> None:
    forms = all_forms()
    same = [(one, other) for one in forms for other in forms if one < other and forms[one] == forms[other]]
    assert same == []


def test_forms_do_not_depend_on_the_hash_seed() -> None:
    program = "import json; from tests.cache.test_forms import all_forms; print(json.dumps(all_forms()))"
    seeds = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", program],
                cwd=ROOT,
                env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                check=True,
            ).stdout
        )
        for seed in ("1", "2")
    ]
    assert seeds[0] == seeds[1]


@pytest.mark.parametrize("name", [name for name in MAKERS if not any(part in name for part in NOT_RECORDED)])
def test_forms_are_the_same_in_every_version_of_python(name: str) -> None:
    recorded = json.loads(RECORDED.read_text())
    assert form(MAKERS[name]()) == recorded[name]


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3) | st.integers(), inner) | st.lists(inner).map(tuple),
    max_leaves=30,
)


def described(value: Any) -> Any:
    """Types included: 1, 1.0 and True are equal."""
    if isinstance(value, list | tuple):
        return (type(value), *map(described, value))
    if isinstance(value, dict):
        return (dict, sorted((repr(described(key)), repr(described(held))) for key, held in value.items()))
    return type(value), repr(value)


@given(json_like, json_like)
def test_two_values_have_one_form_exactly_if_they_are_equal(one: Any, other: Any) -> None:
    assert (form(one) == form(other)) == (described(one) == described(other))


@given(json_like)
def test_the_order_of_a_dict_and_shared_parts_do_not_matter(value: Any) -> None:
    one = {"a": value, "b": value, "c": 1}
    other = {"c": 1, "b": copy.deepcopy(value), "a": value}
    assert form(one) == form(other)
    assert form([one] * 3) == form([one, other, one])


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers() | st.lists(st.integers())), max_size=100))
def test_tables_have_one_form_whatever_the_order_in_their_rows(rows: list[dict[str, Any]]) -> None:
    turned = [dict(reversed(row.items())) for row in rows]
    assert form(rows) == form(turned)
    assert form(rows) != form([*rows, {}])


def test_what_contains_itself_has_a_form() -> None:
    def ring(length: int) -> list[Any]:
        first: list[Any] = []
        last = first
        for _ in range(length - 1):
            last.append([])
            last = last[0]
        last.append(first)
        return first

    assert form(ring(2)) == form(ring(2))
    assert form(ring(2)) != form(ring(3))


def test_many_paths_to_one_object_cost_one_look() -> None:
    value: Any = [Plain(1)]
    for _ in range(100):
        value = [value, value]
    assert form(value) == form(value)


def test_strides_do_not_matter_and_fortran_order_does() -> None:
    array = np.arange(60_000.0).reshape(200, 300)
    wide = np.repeat(array, 2, axis=1)
    assert form(wide[:, ::2]) == form(array)
    assert form(array[::-1][::-1]) == form(array)
    assert form(np.asfortranarray(array)) != form(array)
    assert form(np.asfortranarray(array)) == form(np.asfortranarray(array.copy()))


@pytest.mark.parametrize("count", [1000, 100_000, 524_288, 524_289, 2_000_000])
def test_the_digest_does_not_depend_on_the_pieces(count: int) -> None:
    array = np.arange(float(count))
    data = memoryview(array.view(np.uint8))
    whole = digest(data)
    for size in (77_777, 1 << 20, 1 << 22, 1 << 23):
        pieces = (data[begin : begin + size] for begin in range(0, len(data), size))
        assert digest_in_pieces(pieces, len(data)) == whole
    assert form(np.repeat(array, 2)[::2]) == form(array)
    array[-1] += 1
    assert digest(data) != whole


def test_padding_between_fields_does_not_matter() -> None:
    kind = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    one, other = (np.frombuffer(bytearray([filler] * 48), kind) for filler in (0, 255))
    for array in (one, other):
        array["a"], array["b"] = 1, 2.0
    assert one.tobytes() != other.tobytes()
    assert form(one) == form(other)


def test_frames_do_not_depend_on_their_blocks() -> None:
    one = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    other = pd.DataFrame({"a": [1, 2]})
    other["b"] = [3, 4]
    assert form(one) == form(other)
    assert form(one) != form(one[["b", "a"]])
    assert form(one) != form(one.rename(columns={"a": "c"}))
    assert form(pd.DataFrame({"a": ["x", "y", "x"]})[:2]) == form(pd.DataFrame({"a": ["x", "y"]}))


@pytest.mark.parametrize("values", [[1, None, 3], ["a", None, "ccc"], [True, None, False], [[1], None, []], [b"a", b"", b"b"]])
def test_arrow_arrays_do_not_depend_on_chunks_or_offsets(values: list[Any]) -> None:
    whole = pa.array(values)
    assert form(pa.chunked_array([whole[:1], whole[1:]])) == form(whole)
    assert form(pa.array([values[0], *values])[1:]) == form(whole)
    assert form(pa.array([*values, values[0]])) != form(whole)
    assert form(whole.slice(0, 2)) != form(whole.slice(1, 2))


def test_what_a_cached_property_has_computed_does_not_matter_but_what_is_set_does() -> None:
    one, other = Point(1), Point(1)
    assert one.doubled == 2
    assert form(one) == form(other)
    vars(other)["note"] = "set"
    assert form(one) != form(other)
    assert form(Boat("a")) != form(Boat("b"))
    assert form(Order(number=1)) != form(Order(number=1, lines=["x"]))


def test_a_memory_map_is_an_array_unless_told_apart(tmp_path: Path) -> None:
    array = np.arange(10)
    mapped = np.memmap(tmp_path / "map", array.dtype, "w+", shape=array.shape)
    mapped[:] = array
    assert form(mapped) == form(array)
    assert form(mapped, tell_maps_apart=True) != form(array, tell_maps_apart=True)


class Handle:
    def __init__(self, name: str) -> None:
        self.name = name
        self.opened = iter([object()])

    def __reduce__(self) -> Any:
        raise TypeError("a handle belongs to its process")


class NamedHandle(Handle):
    pass


def test_register_hasher_says_what_stands_for_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncpar._cache.parts._registered", {})
    with pytest.raises(UnstableValueError, match=r"belongs to its process.*register_hasher\(Handle"):
        form([Handle("a")])
    asyncpar.register_hasher(Handle, lambda handle: handle.name)
    assert form(Handle("a")) == form(Handle("a"))
    assert form(Handle("a")) != form(Handle("b"))
    assert form(NamedHandle("a")) != form(Handle("a"))


def test_strict_refuses_what_only_its_pickle_describes() -> None:
    for value in (Point(1), Boat("a"), Order(number=1), Pair(1, 2), Path("a"), len, {"a": [1]}, np.arange(3), pd.Series([1])):
        assert form(value, strict=True)
    assert form(Pair(1, 2)) != form((1, 2)) != form(Pair(2, 1))
    with pytest.raises(UnstableValueError, match="only its pickle"):
        form(Plain(1), strict=True)


@pytest.mark.parametrize(("arguments", "message"), [((1, len), "takes a class"), ((Plain, 1), "takes a function")])
def test_register_hasher_refuses_what_is_no_class_or_no_function(arguments: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        asyncpar.register_hasher(*arguments)
