"""Sources that misbehave, and items that cannot be compared, hashed or tested: a map gives what a comprehension gives."""

from __future__ import annotations

import enum
from collections import UserList
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import pytest

from asyncpar import Executor, pmap
from tests.calls.odd_items import Letters, Level, Number, Point, Text, Touchy, add3, another, pair, what_it_is
from tests.functions import add, double
from tests.loops import on_one_loop

# What comes out of a source does not depend on the event loop
pytestmark = [pytest.mark.anyio, on_one_loop]


class LongerThanItSays(list[int]):
    def __len__(self) -> int:
        return 3


class HasNoLength(list[int]):
    def __len__(self) -> int:
        raise RuntimeError("no length")


class HintsWrongly:
    def __iter__(self) -> Iterator[int]:
        return iter(range(50))

    def __length_hint__(self) -> int:
        return -1


class IteratesOverMore(list[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(50))


class HasOtherItems(list[int]):
    def __getitem__(self, index: Any) -> Any:
        return "not what iterating gives"


class OnlyHasItems:
    """Iterated over by index, as before there were iterators."""

    def __getitem__(self, index: int) -> int:
        if index == 50:
            raise IndexError
        return index


class EndsInItsOwnWay(StopIteration):
    pass


class ForgetsItsEnd:
    """Says once that it is exhausted, and has more items then."""

    def __init__(self) -> None:
        self._next = 0

    def __iter__(self) -> ForgetsItsEnd:
        return self

    def __next__(self) -> int:
        self._next += 1
        if self._next == 51:
            raise EndsInItsOwnWay
        return self._next - 1


class AnswersToAnything:
    """As proxies and recorders do."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None

    def __iter__(self) -> Iterator[int]:
        return iter(range(50))


class FailsToAnswer:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def __iter__(self) -> Iterator[int]:
        return iter(range(50))


class OnlyNext:
    """All that `async for` asks of an iterator."""

    def __init__(self) -> None:
        self._numbers = iter(range(50))

    async def __anext__(self) -> int:
        try:
            return next(self._numbers)
        except StopIteration:
            raise StopAsyncIteration from None


class BarelyAsync:
    def __aiter__(self) -> OnlyNext:
        return OnlyNext()


SOURCES: list[Callable[[], Any]] = [
    lambda: LongerThanItSays(range(50)),
    lambda: HasNoLength(range(50)),
    HintsWrongly,
    lambda: IteratesOverMore([1, 2, 3]),
    lambda: HasOtherItems(range(50)),
    lambda: UserList(range(50)),
    OnlyHasItems,
    ForgetsItsEnd,
    AnswersToAnything,
    FailsToAnswer,
    lambda: iter(iter(range(50)).__next__, None),
    BarelyAsync,
]


async def test_odd_sources_give_what_iterating_over_them_gives(executor: Executor) -> None:
    for source in SOURCES:
        name = type(source()).__name__
        for batch_size in ("auto", 25):
            results: Any = await pmap(double, source(), executor=executor, batch_size=batch_size)
            assert results == [2 * x for x in range(50)], name
        assert [result async for result in pmap(double, source(), executor=executor)] == [2 * x for x in range(50)], name
        assert await pmap(add, range(60), source(), executor=executor) == [2 * x for x in range(50)], name


async def test_a_class_that_makes_async_iterables_may_be_iterated_over_itself(executor: Executor) -> None:
    class Colour(enum.Enum):
        RED = 1
        BLUE = 2

        async def __aiter__(self) -> AsyncIterator[int]:
            yield self.value

    results = await pmap(lambda colour: colour.value, Colour, executor=executor)
    assert results == [1, 2]


async def test_a_list_that_becomes_shorter_ends_there(executor: Executor) -> None:
    numbers, letters = list(range(40)), list("a" * 60)
    got = []
    async for number, _ in pmap(pair, numbers, letters, executor=executor, batch_size=1, buffersize=4):
        got.append(number)
        if number == 9:
            del letters[20:], numbers[30:]
    assert got == list(range(20))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_generator_that_is_running_already_raises_what_iterating_raises(executor: Executor, stream: bool) -> None:
    seen: list[str] = []

    def recursive() -> Iterator[int]:
        with pytest.raises(ValueError, match="generator already executing"):
            next(generator)
        seen.append("refused")
        yield 1

    generator = recursive()
    results = pmap(double, generator, executor=executor)
    assert ([result async for result in results] if stream else await results) == [2]
    assert seen == ["refused"]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_async_generator_that_maps_itself_is_told_so(executor: Executor, stream: bool) -> None:
    async def recursive() -> AsyncIterator[int]:
        results = pmap(double, generator, executor=executor)
        with pytest.raises(RuntimeError, match="asynchronous generator is already running"):
            _ = [result async for result in results] if stream else await results
        yield 1

    generator = recursive()
    assert [number async for number in generator] == [1]


class Alarm(BaseException):
    pass


@pytest.mark.parametrize("kind", [Alarm, SystemExit])
@pytest.mark.parametrize("stream", [True, False])
async def test_any_exception_of_a_source_is_raised(executor: Executor, kind: Any, stream: bool) -> None:
    def breaks() -> Iterator[int]:
        yield from range(20)
        raise kind

    async def breaks_async() -> AsyncIterator[int]:
        for number in range(20):
            yield number
        raise kind

    for source in (breaks(), breaks_async()):
        with pytest.raises(kind):
            results = pmap(double, source, executor=executor)
            _ = [result async for result in results] if stream else await results
    assert await pmap(double, range(9), executor=executor) == [2 * x for x in range(9)]


@pytest.mark.parametrize("kind", [RuntimeError, Alarm, SystemExit])
@pytest.mark.parametrize("stream", [True, False])
async def test_all_generators_are_closed_whatever_the_first_raises(executor: Executor, kind: Any, stream: bool) -> None:
    closed = []

    def careful(name: str) -> Iterator[int]:
        try:
            yield from range(20)
        finally:
            closed.append(name)
            raise kind(name)

    async def careful_async(name: str) -> AsyncIterator[int]:
        try:
            for number in range(20):
                yield number
        finally:
            closed.append(name)
            raise kind(name)

    for second in (careful("b"), careful_async("b")):
        closed.clear()
        with pytest.raises(kind):
            results = pmap(add3, careful("a"), second, range(2), executor=executor)
            _ = [result async for result in results] if stream else await results
        assert sorted(closed) == ["a", "b"]
    assert await pmap(double, range(9), executor=executor) == [2 * x for x in range(9)]


async def test_items_and_results_are_neither_compared_nor_hashed_nor_tested(executor: Executor) -> None:
    items = [Touchy(number) for number in range(12)]
    for source in (items, iter(items)):
        results = await pmap(another, source, executor=executor, batch_size=5)
        assert [result.number for result in results] == list(range(12))
    results = [result async for result in pmap(another, items, executor=executor, ordered=False)]
    assert sorted(result.number for result in results) == list(range(12))


SUBCLASSES: list[Any] = [
    [Text("a"), "b", Text("c")],
    [Number(1), 2, Number(3), True, False],
    [Point(1, 2), (3, 4)],
    Point([1], "b"),
    list(Level),
    Letters("some words"),
    [np.float64(1.5), 1.5, np.str_("text"), np.bool_(True)],
    np.array([1.5, 2.5]).view(np.recarray),
    np.ma.masked_array([1, 2, 3], mask=[False, True, False]).filled(9),
    bytearray(b"abc"),
    memoryview(b"abc"),
    {"key": 1}.items(),
]


@pytest.mark.parametrize("batch_size", ["auto", 1, 9])
async def test_subclasses_of_plain_types_stay_what_they_are(executor: Executor, batch_size: Any) -> None:
    for source in SUBCLASSES:
        expected = [what_it_is(item) for item in source]
        assert await pmap(what_it_is, source, executor=executor, batch_size=batch_size) == expected
        assert await pmap(what_it_is, iter(source), executor=executor, batch_size=batch_size) == expected
