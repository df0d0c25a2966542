"""What is in an object beside what its class shows: different content must never have one form."""

from __future__ import annotations

import collections
import dataclasses
import functools
import pathlib
import threading
import zoneinfo
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from asyncpar._cache.forms import UnstableValueError
from tests.cache.test_forms import form


@dataclasses.dataclass
class Labelled(dict[str, int]):
    label: str = ""


@dataclasses.dataclass
class Rows(list[int]):
    label: str = ""


@dataclasses.dataclass
class Measure(float):
    unit: str

    def __new__(cls, unit: str, value: float) -> Measure:
        return float.__new__(cls, value)

    def __init__(self, unit: str, value: float) -> None:
        self.unit = unit


@dataclasses.dataclass
class Failure(Exception):
    code: int


class Slotted:
    __slots__ = ("shown",)
    shown: int


class HiddenSlot(Slotted):
    __slots__ = ("__hidden",)

    def hide(self, value: int) -> Any:
        self.__hidden = value
        return self


@dataclasses.dataclass
class OnSlots(Slotted):
    x: int = 0


@dataclasses.dataclass
class OnHiddenSlot(HiddenSlot):
    x: int = 0


@attrs.define
class AttrsOnSlots(Slotted):
    x: int = 0


class Reversed(collections.namedtuple("Reversed", "one other")):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


class Tagged(set[int]):
    __slots__ = ("tag",)
    tag: str


class Remote(pathlib.PurePosixPath):
    host: str


class Quantity(np.ndarray):
    _unit: str


class SlottedArray(np.ndarray):
    __slots__ = ("unit",)
    unit: str


class MaskedQuantity(np.ma.MaskedArray):  # type: ignore[type-arg, unused-ignore]
    unit: str


class GeoFrame(pd.DataFrame):  # type: ignore[misc, unused-ignore]
    _metadata = ["place"]  # noqa: RUF012 - as pandas wants it
    place: str


class GeoSeries(pd.Series):  # type: ignore[misc, type-arg, unused-ignore]
    _metadata = ["place"]  # noqa: RUF012
    place: str


class Made:
    def __init__(self, x: int) -> None:
        self.x = x

    @classmethod
    def make(cls, x: int) -> Made:
        return cls(x)

    def __reduce__(self) -> Any:
        return self.make, (self.x,)


class MadeToo(Made):
    pass


class MadeByClosure:
    def __init__(self, x: int) -> None:
        self.x = x

    def __reduce__(self) -> Any:
        x = self.x
        return lambda: MadeByClosure(x), ()


def class_in_a_function(n: int) -> type:
    class Inner:
        factor = n

        def times(self, x: int) -> int:
            return n * x

    return Inner


def class_with_a_base(base: type) -> type:
    return type("class_with_a_base.<locals>.Inner", (base,), {})


def named_tuple(names: str) -> Any:
    make: Any = collections.namedtuple
    return make("P", names)(1, 2)


def cached(n: int) -> Any:
    return functools.lru_cache(lambda x: x + n)


def with_(value: Any, **attributes: Any) -> Any:
    for name, held in attributes.items():
        setattr(value, name, held)
    return value


def field(text: str) -> pa.Field:
    return pa.field("a", pa.int64(), metadata={"k": "x" * 300 + text})


def table(text: str) -> pa.Table:
    return pa.table({"a": [1]}, schema=pa.schema([field(text)]))


DAYS = pd.date_range("2026-01-01", periods=3)

PAIRS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "dataclass that is a dict": (lambda: with_filled(Labelled("a"), q=1), lambda: with_filled(Labelled("a"), q=2)),
    "dataclass that is a list": (lambda: extended(Rows("a"), 1), lambda: extended(Rows("a"), 2)),
    "dataclass that is a number": (lambda: Measure("m", 1.0), lambda: Measure("m", 2.0)),
    "dataclass that is an exception": (lambda: with_(Failure(1), args=(1,)), lambda: with_(Failure(1), args=(2,))),
    "dataclass on slots": (lambda: with_(OnSlots(1), shown=1), lambda: with_(OnSlots(1), shown=2)),
    "dataclass on hidden slots": (lambda: OnHiddenSlot(1).hide(1), lambda: OnHiddenSlot(1).hide(2)),
    "attrs class on slots": (lambda: with_(AttrsOnSlots(1), shown=1), lambda: with_(AttrsOnSlots(1), shown=2)),
    "field that is absent": (lambda: without(OnSlots(1), "x"), lambda: with_(OnSlots(1), x=None)),
    "named tuple that iterates otherwise": (lambda: Reversed(1, 2), lambda: Reversed(1, 3)),
    "set with slots": (lambda: with_(Tagged({1}), tag="a"), lambda: with_(Tagged({1}), tag="b")),
    "path with attributes": (lambda: with_(Remote("a"), host="x"), lambda: with_(Remote("a"), host="y")),
    "object made by its class": (lambda: Made(1), lambda: MadeToo(1)),
    "object made by a closure": (lambda: MadeByClosure(1), lambda: MadeByClosure(2)),
    "class in a function": (lambda: class_in_a_function(1), lambda: class_in_a_function(2)),
    "object of a class in a function": (lambda: class_in_a_function(1)(), lambda: class_in_a_function(2)()),
    "class on another base": (lambda: class_with_a_base(Made), lambda: class_with_a_base(Slotted)),
    "named tuple class without a home": (
        lambda: named_tuple("a b"),
        lambda: named_tuple("b a"),
    ),
    "function in a cache": (lambda: cached(1), lambda: cached(2)),
    "array of a class with private attributes": (
        lambda: with_(np.arange(3).view(Quantity), _unit="m"),
        lambda: with_(np.arange(3).view(Quantity), _unit="km"),
    ),
    "array of a class with slots": (
        lambda: with_(np.arange(3).view(SlottedArray), unit="m"),
        lambda: with_(np.arange(3).view(SlottedArray), unit="km"),
    ),
    "masked array of a class": (
        lambda: with_(np.ma.arange(3).view(MaskedQuantity), unit="m"),
        lambda: with_(np.ma.arange(3).view(MaskedQuantity), unit="km"),
    ),
    "hard mask": (lambda: np.ma.array([1], mask=[True]), lambda: np.ma.array([1], mask=[True], hard_mask=True)),
    "masked value": (lambda: np.ma.masked, lambda: np.ma.array(0.0, mask=True)),
    "frame of a class": (
        lambda: with_(GeoFrame({"a": [1]}), place="x"),
        lambda: with_(GeoFrame({"a": [1]}), place="y"),
    ),
    "series of a class": (lambda: with_(GeoSeries([1]), place="x"), lambda: with_(GeoSeries([1]), place="y")),
    "frame with flags": (
        lambda: pd.DataFrame({"a": [1]}),
        lambda: pd.DataFrame({"a": [1]}).set_flags(allows_duplicate_labels=False),
    ),
    "frequency of an index": (lambda: DAYS, lambda: pd.DatetimeIndex(list(DAYS))),
    "metadata of an arrow field": (lambda: field("1"), lambda: field("2")),
    "metadata of an arrow table": (lambda: table("1"), lambda: table("2")),
    "metadata in an arrow type": (lambda: pa.struct([field("1")]), lambda: pa.struct([field("2")])),
    "name of an arrow field": (
        lambda: pa.schema([("a: int64\nb", pa.int64())]),
        lambda: pa.schema([("a", pa.int64()), ("b", pa.int64())]),
    ),
    "arrow view of texts": (lambda: pa.array(["a", None], pa.string_view()), lambda: pa.array(["b", None], pa.string_view())),
}  # fmt: skip


def with_filled(value: Any, **items: Any) -> Any:
    value.update(items)
    return value


def extended(value: Any, element: Any) -> Any:
    value.append(element)
    return value


def without(value: Any, name: str) -> Any:
    delattr(value, name)
    return value


@pytest.mark.parametrize("name", PAIRS)
def test_different_content_has_different_forms(name: str) -> None:
    one, other = PAIRS[name]
    assert form(one()) == form(one())
    assert form(other()) == form(other())
    assert form(one()) != form(other())


def test_a_function_that_numpy_has_made_of_another_is_refused() -> None:
    assert form(np.add) != form(np.subtract)
    with pytest.raises(UnstableValueError, match="frompyfunc"):
        form(np.frompyfunc(lambda x: x + 1, 1, 1))


def test_the_padding_of_long_doubles_does_not_matter() -> None:
    zeros = np.zeros(4, np.longdouble)
    filled = np.full(zeros.nbytes, 7, np.uint8)
    if np.finfo(np.longdouble).nmant != 63:
        pytest.skip("long doubles of this machine have no padding")
    filled.reshape(4, -1)[:, :10] = 0
    assert form(filled.view(np.longdouble)) == form(zeros)
    assert form(filled.view(np.clongdouble)) == form(zeros.view(np.clongdouble))
    assert form(zeros + 1) != form(zeros)


@pytest.mark.parametrize(
    "view",
    [memoryview(b""), memoryview(np.zeros((0, 3))), memoryview(np.asfortranarray(np.ones((2, 3)))), memoryview(b"abcd")[::2]],
    ids=["empty", "without rows", "fortran", "strided"],
)
def test_every_memory_view_has_a_form(view: memoryview) -> None:
    assert form(view) == form(view)


class Guarded:
    """A dataclass with a lock, which its pickles leave out."""

    def __getstate__(self) -> Any:
        return {name: held for name, held in vars(self).items() if name != "lock"}


@dataclasses.dataclass
class Account(Guarded):
    owner: str

    def __post_init__(self) -> None:
        self.lock = threading.Lock()


def test_a_dataclass_that_pickles_in_its_own_way_is_what_its_pickle_says() -> None:
    assert form(Account("a")) == form(Account("a")) != form(Account("b"))


class Homeless:
    __module__ = None  # type: ignore[assignment]


class Rude:
    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError(name)


def test_odd_objects_have_forms_or_are_refused_by_name() -> None:
    assert form(Homeless()) == form(Homeless())
    with open("/usr/share/zoneinfo/UTC", "rb") as file, pytest.raises(UnstableValueError, match="file stream"):
        form(zoneinfo.ZoneInfo.from_file(file))
    duplicate = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(UnstableValueError, match="duplicate field names"):
        form(duplicate)
