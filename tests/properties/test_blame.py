"""However containers are nested, and whatever else is in them, the path leads to the one object that cannot be pickled."""

from __future__ import annotations

import collections
import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpar._wire import blame
from asyncpar._wire.blame import find_unpicklable
from tests.unit.test_blame import Bag, Broken, FrozenModel, Model, Point, Rebuilds, Renames, Slotted, SlottedAndOpen


@pytest.fixture(autouse=True, scope="module")
def no_hurry() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blame, "_MOST_SECONDS", 30.0)  # the machine may pause
        yield


def renaming(inner: Any) -> Renames:
    renames = Renames()
    renames._lock = inner
    return renames


# Each puts the object that it is given among others that can be pickled.
Wrap = Callable[[Any, list[Any]], Any]
HASHED: list[Wrap] = [
    lambda inner, others: {*map(repr, others), inner},
    lambda inner, others: frozenset([*map(repr, others), inner]),
    lambda inner, others: {**{repr(other): other for other in others}, inner: others},
]
BACK: list[Wrap] = [  # remembered by pickle before it looks at their parts, so that these may point back to them
    lambda inner, others: [*others, inner, *others],
    lambda inner, others: {"others": others, "inner": inner},
    lambda inner, others: {1: others, 10**30: inner},
    lambda inner, others: Bag([*others, inner]),
    lambda inner, others: Slotted([others, inner]),
    lambda inner, others: SlottedAndOpen([others, inner]),
    lambda inner, others: collections.OrderedDict(others=others, inner=inner),
    lambda inner, others: renaming(inner),
]
ANY: list[Wrap] = [
    *BACK,
    lambda inner, others: (*others, inner),
    lambda inner, others: collections.deque([*others, inner]),
    lambda inner, others: Model(repr(others), inner),
    lambda inner, others: FrozenModel(repr(others), inner),
    lambda inner, others: Point(len(others), inner),
    lambda inner, others: Rebuilds(inner),
    lambda inner, others: functools.partial(max, *others, inner, others=others),
    lambda inner, others: functools.partial(max, *others, inner=inner),
    lambda inner, others: Model("method", inner).__repr__,
    lambda inner, others: ValueError(*others, inner),
    lambda inner, others: Broken(repr(others), inner),
]
plain = st.recursive(
    st.none() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def nest(core: Any, steps: list[tuple[Wrap, list[Any]]]) -> Any:
    for wrap, others in steps:
        try:
            core = wrap(core, others)
        except TypeError:  # it cannot be hashed
            core = [core]
    return core


@given(st.lists(st.tuples(st.sampled_from(HASHED + ANY), st.lists(plain, max_size=3)), max_size=12))
def test_the_path_of_a_planted_lock_evaluates_to_it(steps: list[tuple[Wrap, list[Any]]]) -> None:
    lock = threading.Lock()
    root = nest(lock, steps)
    culprit = find_unpicklable(root, "root")
    assert culprit is not None
    assert culprit.is_exact
    assert eval(culprit.path, {"root": root}) is lock
    assert find_unpicklable(nest(3, steps), "root") is None


@given(st.lists(st.tuples(st.sampled_from(BACK), st.booleans()), max_size=12))
def test_the_path_of_a_planted_lock_is_found_among_links_back(steps: list[tuple[Wrap, bool]]) -> None:
    lock = threading.Lock()
    links: list[list[Any]] = [[] for _ in steps]
    levels: list[Any] = [lock]
    for (wrap, _), link in zip(steps, links, strict=True):
        levels.append(wrap(levels[-1], [link]))
    for (_, to_the_root), link, level in zip(steps, links, levels[1:], strict=True):
        link.append(levels[-1] if to_the_root else level)
    culprit = find_unpicklable(levels[-1], "root")
    assert culprit is not None
    assert culprit.is_exact
    assert eval(culprit.path, {"root": levels[-1]}) is lock
