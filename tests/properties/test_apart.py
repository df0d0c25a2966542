"""A list whose pickle cannot be read as a whole is read element by element, and only what cannot be read is missing."""

from __future__ import annotations

import io
import pickle
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asyncpar._wire.apart import take_apart
from asyncpar._wire.pickler import Pickler

UNREADABLE = "unreadable"


class Unreadable:
    """Its pickle cannot be read."""

    def __init__(self, held: Any = None) -> None:
        self.held = held

    def __setstate__(self, state: object) -> None:
        raise ValueError("no")


class HoldsItself:
    """What its pickle is made with contains it."""

    def __init__(self) -> None:
        self.held = [self]

    def __reduce__(self) -> Any:
        return refuse, (self.held,)


def refuse(held: object) -> Any:
    raise ValueError("no")


class Holder:
    def __init__(self, held: Any) -> None:
        self.held = held


def pickled(elements: list[Any]) -> tuple[bytes, list[Any]]:
    buffers: list[pickle.PickleBuffer] = []
    with io.BytesIO() as file:
        Pickler(file, 5, buffers.append).dump(elements)
        return file.getvalue(), [buffer.raw() for buffer in buffers]


def read_apart(elements: list[Any]) -> list[Any]:
    read: list[Any] = []
    for data, buffers in take_apart(*pickled(elements)):
        try:
            read.append(pickle.loads(data, buffers=buffers))
        except ValueError:
            read.append(UNREADABLE)
    return read


def plain(element: Any) -> Any:
    """What can be compared of an element; UNREADABLE if there is anything in it that cannot be read."""
    if isinstance(element, Unreadable | HoldsItself):
        return UNREADABLE
    if isinstance(element, Holder):
        return within(("holder", element.held))
    if isinstance(element, np.ndarray):
        return element.tolist()
    if isinstance(element, dict):
        return within(tuple(element.items()))
    return within(element) if isinstance(element, list | tuple) else element


def within(elements: Any) -> Any:
    found = [plain(element) for element in elements]
    return UNREADABLE if UNREADABLE in map(str, found) else found


def of_shared(shared: list[Any]) -> st.SearchStrategy[Any]:
    """Elements that hold some of these objects, themselves and not copies of them."""
    leaves = st.sampled_from(shared) | st.integers() | st.text(max_size=5) | st.builds(Unreadable) | st.builds(HoldsItself)
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.tuples(inner, inner)
            | st.dictionaries(st.text(max_size=3), inner, max_size=2)
            | st.builds(Holder, inner)
            | st.builds(Unreadable, inner)
        ),
        max_leaves=6,
    )


@given(st.data())
def test_every_element_that_can_be_read_is_read(data: st.DataObject) -> None:
    array: Any = np.arange(4.0)
    shared = [[1, 2], {"a": [3]}, Holder("x"), date(2020, 1, 2), Decimal("1.5"), array, (array, "y")]
    shared.append(Holder(shared[:2]))
    elements = data.draw(st.lists(of_shared(shared), max_size=12))
    assert list(map(plain, read_apart(elements))) == list(map(plain, elements))


def test_objects_that_hold_themselves_are_read() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    pair: Any = ([], 2)
    pair[0].append(pair)
    first, second, third, bad, last = read_apart([ring, [ring], pair, Unreadable(ring), [pair, ring]])
    assert first[1] is first
    assert second[0][1] is second[0]
    assert third[0][0] is third
    assert bad == UNREADABLE
    assert last[0][0][0] is last[0]
    assert last[1][0] == 1


def test_what_an_unreadable_element_has_made_first_is_there_for_the_others() -> None:
    inner = {"deep": [1, 2]}
    assert read_apart([Unreadable(inner), inner, [inner, "more"]]) == [UNREADABLE, inner, [inner, "more"]]


def test_a_class_that_is_sent_by_value_is_read_with_each_element() -> None:
    class Local:
        def __init__(self, x: int) -> None:
            self.x = x

    first, bad, second = read_apart([Local(1), Unreadable(Local(2)), [Local(3), Local]])
    assert (first.x, bad, second[0].x) == (1, UNREADABLE, 3)
    assert type(second[0]) is second[1]


def test_a_long_list_is_taken_apart_as_well() -> None:
    elements = [[position, "same"] if position % 700 else Unreadable() for position in range(3000)]
    assert list(map(plain, read_apart(elements))) == list(map(plain, elements))
