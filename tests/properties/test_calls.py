"""However calls are mixed, pulled and cut into batches: run batch by batch, they give what a loop over them gives."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpar._sync.asked_source import AskedSource
from asyncpar._sync.calls import CallPuller
from tests.functions import add, double


@pytest.fixture(autouse=True, scope="module")
def no_hurry() -> Iterator[None]:
    """What has been pulled is delivered when enough has been, however slow the machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asyncpar._sync.calls._PULL_SECONDS", 60.0)
        yield


class Box:
    def __init__(self, value: int) -> None:
        self.value = value

    def plus(self, x: int, times: int = 1) -> int:
        return self.value + times * x


BOXES = [Box(1), Box(2)]
numbers = st.integers(0, 99)
calls = st.one_of(
    st.tuples(st.just(double), st.tuples(numbers), st.just({})),
    st.tuples(st.just(add), st.tuples(numbers, numbers), st.just({})),
    st.tuples(st.just(add), st.tuples(numbers), st.fixed_dictionaries({"b": numbers})),
    st.tuples(st.just(dict), st.just(()), st.just({})),
    st.tuples(st.just(dict), st.just(()), st.dictionaries(st.sampled_from("abc"), numbers)),
    st.builds(lambda box, x: (box.plus, (x,), {}), st.sampled_from(BOXES), numbers),
    st.builds(lambda box, x: (box.plus, (x,), {"times": 2}), st.sampled_from(BOXES), numbers),
    st.builds(lambda n, x: (partial(add, n), [x], {}), numbers, numbers),
)
stretches = st.lists(st.tuples(calls, st.integers(1, 40))).map(
    lambda runs: [call for call, times in runs for _ in range(times)]
)


def results_in_batches(given_calls: list[Any], pieces: list[int], sizes: list[int]) -> list[Any]:
    puller = CallPuller(iter(given_calls))
    source = AskedSource(lambda count: None, None)
    source.deliver(puller.pull(pieces[0]))
    results = []
    turn = 0
    while not source.exhausted:
        columns = source.take(sizes[turn % len(sizes)])
        if columns:
            function = source.function
            assert function is not None
            assert len({len(column) for column in columns}) == 1
            assert 1 <= len(columns[0]) <= sizes[turn % len(sizes)]
            results += [function(*row) for row in zip(*columns, strict=True)]
        else:
            source.deliver(puller.pull(pieces[turn % len(pieces)]))
        turn += 1
    assert source.stored == 0
    return results


@given(stretches, st.lists(st.integers(1, 100), min_size=1), st.lists(st.integers(1, 50), min_size=1))
def test_batches_of_calls_give_what_a_loop_gives(given_calls: list[Any], pieces: list[int], sizes: list[int]) -> None:
    expected = [function(*args, **kwargs) for function, args, kwargs in given_calls]
    assert results_in_batches(given_calls, pieces, sizes) == expected


@given(st.sampled_from(["plus", "index"]), st.integers(1, 500), st.integers(1, 100))
def test_calls_of_one_method_share_it_whatever_the_pieces(name: str, count: int, piece: int) -> None:
    owner = BOXES[0] if name == "plus" else list(range(500))
    puller = CallPuller([(getattr(owner, name), (x,), {}) for x in range(count)])
    functions = set()
    while not puller.exhausted:
        functions |= {id(segment.function) for segment in puller.pull(piece).segments}
    assert len(functions) == 1


@given(st.permutations(["double", "add", "partial"]), st.integers(1, 50))
def test_functions_that_take_turns_share_one_table(order: list[str], piece: int) -> None:
    one: dict[str, Any] = {"double": (double, (1,), {}), "add": (add, (1, 2), {}), "partial": (partial(add, 1), (1,), {})}
    puller = CallPuller([one[name] for name in order] * 60)
    tables = set()
    while not puller.exhausted:
        pulled = puller.pull(3 * piece)
        tables |= {id(segment.function) for segment in pulled.segments}
    assert len(tables) == 1
