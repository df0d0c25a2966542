"""Pickling by name is only quicker: what arrives, and what is refused, is the same as if classes were looked at one by one."""

from __future__ import annotations

import copyreg
import enum
import functools
import re
import sys
import threading
from abc import ABC
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpar._wire.codec import BY_NAME, ONE_BY_ONE, OUT_OF_BAND_BYTES, WHOLE, Undeliverable
from asyncpar._wire.decoder import Decoder
from asyncpar._wire.encoder import Encoder, first_manner


@dataclass
class Point:
    x: Any


class Abstract(ABC):  # noqa: B024 - only its metaclass matters
    pass


class Colour(enum.Enum):
    RED = 1


class Registered:
    def __init__(self, x: object) -> None:
        self.x = x


copyreg.pickle(Registered, lambda registered: (Registered, (("by its reducer", registered.x),)))


class Unwilling:
    def __reduce__(self) -> Any:
        raise ValueError("unwilling")


def make_local(x: int) -> Any:
    class Local:
        value = x

    return Local


named = st.one_of(
    st.integers(),
    st.text(),
    st.builds(Point, st.integers()),
    st.builds(Decimal, st.integers()),
    st.builds(PurePath, st.sampled_from(["a", "b/c"])),
    st.builds(re.compile, st.sampled_from(["a+", "b"])),
    st.builds(Registered, st.integers()),
    st.builds(functools.partial, st.just(pow), st.integers()),
    st.builds(lambda x: np.full(2 * OUT_OF_BAND_BYTES, x, np.uint8), st.integers(0, 255)),
    st.sampled_from([Colour.RED, Colour, Abstract, Point, len, re.match, "x".join, Point.__eq__, Ellipsis, type, type(None)]),
)
unnamed = st.one_of(
    st.builds(make_local, st.integers()),
    st.builds(lambda x: make_local(x)(), st.integers()),
    st.builds(lambda x: lambda: x, st.integers()),
    st.builds(lambda x: [Point(lambda: x)], st.integers()),
)
refused = st.one_of(st.builds(threading.Lock), st.builds(Unwilling))


def encode(encoder: Encoder, column: list[Any]) -> Any:
    return encoder.column(column, lambda position: (f"element {position}", "element"))


def sent(column: list[Any], manner: int) -> tuple[list[Any], int]:
    """The column as it arrives, and the manner in which the next one is tried."""
    encoder = Encoder(manner=manner)
    encoded = encode(encoder, column)
    decoder = Decoder(encoder.frame(3, encoded))
    (received,), _ = decoder.columns([decoder.message])
    return list(received), encoder.manner


def same(one: Any, other: Any) -> bool:
    """Two unpickled copies of one object are told apart by nothing."""
    if isinstance(one, Undeliverable):
        return isinstance(other, Undeliverable) and str(one.error) == str(other.error)
    return type(one).__qualname__ == type(other).__qualname__ and described(one) == described(other)


def described(value: Any) -> Any:
    if isinstance(value, Point | Registered):
        return described(value.x)
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, list):
        return [described(element) for element in value]
    if getattr(value, "__qualname__", "").endswith("<lambda>"):
        return value()
    if isinstance(value, functools.partial):
        return value.func, value.args
    local = getattr(value, "value", None)
    return local if "<locals>" in repr(value) else value


@given(st.lists(st.one_of(named, unnamed, refused), min_size=1, max_size=6))
def test_a_column_arrives_as_if_it_had_not_been_sent_by_name(column: list[Any]) -> None:
    by_name, _ = sent(column, BY_NAME)
    whole, _ = sent(column, WHOLE)
    assert len(by_name) == len(whole) == len(column)
    assert all(map(same, by_name, whole))


@given(st.lists(named, min_size=1, max_size=6), st.one_of(unnamed, refused), st.data())
def test_the_first_that_a_name_is_not_enough_for_ends_it(column: list[Any], other: Any, data: st.DataObject) -> None:
    column = [*column, Point(1)]
    assert sent(column, BY_NAME)[1] == BY_NAME
    column.insert(data.draw(st.integers(0, len(column))), other)
    assert sent(column, BY_NAME)[1] == sent(column, WHOLE)[1] > BY_NAME


def test_names_of_the_script_are_seen_wherever_they_are(script_class: type) -> None:
    for column in (
        [script_class()],
        [script_class],
        [[1, {"a": script_class()}]],
        [Point(bytes(100_000)), "text" * 30_000, *map(Point, range(20_000)), script_class()],
        [script_class(), 1 << 2_000_000],
        [Point(1)] * 10 + [script_class(), 1 << 2_000_000],
    ):
        encoder = Encoder(manner=BY_NAME)
        encode(encoder, column)
        assert encoder.brought == [script_class]


@pytest.fixture
def script_class(monkeypatch: pytest.MonkeyPatch) -> type:
    script = ModuleType("__main__")
    exec("class OfTheScript: pass", script.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", script)
    kind: type = script.__dict__["OfTheScript"]
    return kind


@pytest.mark.parametrize("text", ["__main__", b"__main__", "in __main__ as elsewhere"])
def test_a_text_that_is_the_name_of_the_script_does_no_harm(text: Any) -> None:
    received, manner = sent([Point(text)], BY_NAME)
    assert received == [Point(text)]
    assert manner == WHOLE


@pytest.mark.parametrize(
    ("column", "manner"),
    [([{"a": 1}, [2]], WHOLE), ([Point(bytes(3000))], WHOLE), ([Point(b"a")], BY_NAME), ([1, "a"], BY_NAME)],
    ids=["nothing to ask about", "large", "small objects", "plain"],
)
def test_it_goes_on_only_where_it_saves_something(column: list[Any], manner: int) -> None:
    assert sent(column, BY_NAME) == (column, manner)


def test_a_text_file_that_is_written_is_refused_by_either(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as file:
        (received,), manner = sent([file], BY_NAME)
    assert isinstance(received, Undeliverable)
    assert manner == ONE_BY_ONE


@pytest.fixture
def registered_by_value() -> Iterator[Callable[[], int]]:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield first_manner
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_nothing_is_sent_by_name_while_a_module_is_to_be_sent_by_value(registered_by_value: Callable[[], int]) -> None:
    assert registered_by_value() == WHOLE


@pytest.mark.parametrize(("main", "manner"), [(sys.modules["__main__"], BY_NAME), (ModuleType("__mp_main__"), WHOLE)])
def test_only_a_script_that_multiprocessing_has_spawned_rules_it_out(
    main: ModuleType, manner: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "__mp_main__", main)
    assert first_manner() == manner


def test_a_module_that_is_registered_during_a_run_is_sent_by_value(registered_by_value: Callable[[], int]) -> None:
    encoder = Encoder(manner=BY_NAME)
    encode(encoder, [Point(1)])
    assert Point in encoder.brought


def test_no_module_is_imported_to_find_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "executed_without_a_place"
    executed = ModuleType(name)
    exec("class Item: pass", executed.__dict__)
    sought: list[str] = []

    class Finder:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            sought.append(name)

    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    encoder = Encoder(manner=BY_NAME)
    encode(encoder, [executed.Item()])
    assert encoder.brought == [executed.Item]
    assert name not in sought


def test_the_buffers_of_a_failed_try_do_not_travel() -> None:
    first, second = (np.full(2 * OUT_OF_BAND_BYTES, x, np.uint8) for x in range(2))
    encoder = Encoder(manner=BY_NAME)
    columns = [encode(encoder, [first, make_local(1)]), encode(encoder, [second, Point(1)])]
    frame = encoder.frame(3, columns)
    assert len(frame.buffers) == 2
    (_, received), _ = Decoder(frame).columns(columns)
    assert (received[0] == second).all()
