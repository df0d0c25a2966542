"""Values of many types, made anew in each call, and by name, so that another process can make equal ones."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import math
import operator
import pathlib
import re
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, NamedTuple

import attrs
import numpy as np
import pandas as pd
import pyarrow as pa
import pydantic


@dataclasses.dataclass
class Point:
    x: int
    tags: set[str] = dataclasses.field(default_factory=set)

    @functools.cached_property
    def doubled(self) -> int:
        return 2 * self.x


@attrs.define
class Boat:
    name: str
    length: float = 1.0


class Pair(NamedTuple):
    one: int
    other: int


class Words(set[str]):
    pass


class Order(pydantic.BaseModel):
    number: int
    lines: list[str] = []


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Plain:
    def __init__(self, x: Any) -> None:
        self.x = x
        self.words = {"b", "a", "c"}

    def method(self) -> Any:
        return self.x


def add(x: int, y: int = 1) -> int:
    """Adds."""
    return x + y  # a comment


def multiplier(factor: int) -> Callable[[int], int]:
    return lambda x: factor * x


_ARRAY = np.arange(24).reshape(4, 6)

MAKERS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "bool": lambda: True,
    "int": lambda: 1,
    "large int": lambda: 10**50,
    "float": lambda: 1.0,
    "nan": lambda: math.nan,
    "complex": lambda: 1j,
    "str": lambda: "1",
    "surrogate": lambda: "\udc80",
    "bytes": lambda: b"1",
    "long bytes": lambda: bytes(100_000),
    "bytearray": lambda: bytearray(b"1"),
    "memoryview": lambda: memoryview(b"1"),
    "empty tuple": tuple,
    "empty list": list,
    "empty dict": dict,
    "empty set": set,
    "empty frozenset": frozenset,
    "tuple": lambda: (1, 2),
    "list": lambda: [1, 2],
    "nested list": lambda: [[1], (2,)],
    "long nested list": lambda: [[x] for x in range(100)],
    "set": lambda: {"a", "b", "c"},
    "mixed set": lambda: {1, "a", (2, 3), None},
    "frozenset": lambda: frozenset({"a", "b", "c"}),
    "dict": lambda: {"a": 1, "b": 2},
    "dict of dicts": lambda: {"a": {"x": 1}, "b": {2: {3}}},
    "dict of other keys": lambda: {1: "a", (2, 3): "b"},
    "large dict": lambda: {str(x): x for x in range(100)},
    "table": lambda: [{"a": x, "b": str(x)} for x in range(100)],
    "table of one column": lambda: [{"a": x} for x in range(100)],
    "set of a subclass": lambda: Words({"a", "b", "c", "d"}),
    "array of the standard library": lambda: array.array("d", [1, 2]),
    "range": lambda: range(3),
    "slice": lambda: slice(1, 2),
    "ellipsis": lambda: ...,
    "ordered dict": lambda: collections.OrderedDict(a=1, b=2),
    "default dict": lambda: collections.defaultdict(list, b=[2], a=[1]),
    "counter": lambda: collections.Counter("abca"),
    "deque": lambda: collections.deque([1, 2], maxlen=3),
    "date": lambda: datetime.date(2026, 1, 2),
    "datetime": lambda: datetime.datetime(2026, 1, 2, 3),
    "aware datetime": lambda: datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    "zoned datetime": lambda: datetime.datetime(2026, 1, 2, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    "time": lambda: datetime.time(3),
    "timedelta": lambda: datetime.timedelta(1),
    "decimal": lambda: decimal.Decimal("1.0"),
    "fraction": lambda: fractions.Fraction(1, 3),
    "uuid": lambda: uuid.UUID(int=1),
    "path": lambda: pathlib.Path("a/b"),
    "pure path": lambda: pathlib.PurePosixPath("a/b"),
    "pattern": lambda: re.compile("a+", re.IGNORECASE),
    "enum": lambda: Colour.RED,
    "flag": lambda: Access.READ | Access.WRITE,
    "class": lambda: Point,
    "dataclass": lambda: Point(1, {"a", "b"}),
    "named tuple": lambda: Pair(1, 2),
    "attrs": lambda: Boat("a"),
    "pydantic": lambda: Order(number=1),
    "object": lambda: Plain([1]),
    "exception": lambda: ValueError("a"),
    "function": lambda: add,
    "closure": lambda: multiplier(2),
    "other closure": lambda: multiplier(3),
    "built-in function": lambda: math.sqrt,
    "bound built-in": lambda: [1].append,
    "bound method": lambda: Plain(1).method,
    "partial": lambda: functools.partial(add, y=2),
    "getter": lambda: operator.itemgetter(1),
    "numpy scalar": lambda: np.float64(1),
    "numpy bool": lambda: np.True_,
    "dtype": lambda: np.dtype("f4"),
    "structured dtype": lambda: np.dtype([("a", "i1"), ("b", "f8")], align=True),
    "ufunc": lambda: np.add,
    "array": lambda: _ARRAY.copy(),
    "view": lambda: np.repeat(_ARRAY, 2, axis=1)[:, ::2] + 1,
    "fortran array": lambda: np.asfortranarray(_ARRAY),
    "float array": lambda: _ARRAY.astype("f8"),
    "large array": lambda: np.arange(100_000),
    "empty array": lambda: np.zeros((0, 3)),
    "scalar array": lambda: np.array(5),
    "object array": lambda: np.array([1, "a", None], dtype=object),
    "array of dates": lambda: np.array(["2026-01-02"], "M8[ns]"),
    "structured array": lambda: np.zeros(3, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    "masked array": lambda: np.ma.MaskedArray([1, 2], [False, True]),
    "frame": lambda: pd.DataFrame({"a": [1, 2], "b": [1.5, None], "c": ["x", None]}),
    "frame with index": lambda: pd.DataFrame({"a": [1, 2]}, index=pd.Index(["p", "q"], name="i")),
    "frame of many types": lambda: pd.DataFrame(
        {
            "when": pd.to_datetime(["2026-01-02", None]),
            "zone": pd.to_datetime(["2026-01-02", None]).tz_localize("UTC"),
            "kind": pd.Categorical(["a", None], ["b", "a"]),
            "count": pd.array([1, None], "Int64"),
            "period": pd.period_range("2026-01", periods=2, freq="M"),
        }
    ),
    "series": lambda: pd.Series([1, 2], name="a"),
    "range index": lambda: pd.RangeIndex(3),
    "multi index": lambda: pd.MultiIndex.from_product([["a"], [1, 2]], names=["x", "y"]),
    "timestamp": lambda: pd.Timestamp("2026-01-02", tz="UTC"),
    "arrow table": lambda: pa.table({"a": [1, None], "b": ["x", None], "c": [[1], None], "d": [True, None]}),
    "arrow array": lambda: pa.array([1, 2, None]),
    "arrow dictionary": lambda: pa.array(["a", "b", "a"]).dictionary_encode(),
    "arrow type": lambda: pa.int64(),
}
