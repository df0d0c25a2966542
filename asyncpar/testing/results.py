"""Results are those of a list comprehension, calls are made as often as they should be, and the window holds."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from asyncpar._contract.answers import read
from asyncpar._contract.batches import Batch
from asyncpar._contract.executor import Hints, Program
from asyncpar._map.pmap import pmap
from asyncpar.testing.functions import Marking, add, double, double_soon, nap
from asyncpar.testing.kit import Kit, compare


def numbers(count: int) -> Iterator[int]:
    yield from range(count)


async def async_numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


BATCH_SIZES: list[int | Literal["auto"]] = ["auto", 1, 7, 1000]
SOURCES: dict[str, Callable[[int], Any]] = {
    "list": lambda count: list(range(count)),
    "generator": numbers,
    "async generator": async_numbers,
}


class Results(Kit):
    @pytest.mark.parametrize("source", SOURCES)
    async def test_results_are_those_of_a_comprehension(self, source: str) -> None:
        expected = [double(x) for x in range(60)]
        async with self.executor() as executor:
            for batch_size in BATCH_SIZES:
                results = await pmap(double, SOURCES[source](60), executor=executor, batch_size=batch_size)
                compare(results, expected, f"await pmap over a {source} with batch_size={batch_size!r}")
                for ordered in (True, False):
                    stream = pmap(double, SOURCES[source](60), executor=executor, batch_size=batch_size, ordered=ordered)
                    got = [result async for result in stream]
                    what = f"async for … in pmap over a {source} with batch_size={batch_size!r}, ordered={ordered}"
                    compare(got if ordered else sorted(got), expected, what)

    async def test_many_short_calls_all_have_their_results(self) -> None:
        async with self.executor() as executor:
            results = await pmap(double, range(20_000), executor=executor)
        compare(results, [2 * x for x in range(20_000)], "20000 short calls")

    async def test_nothing_in_gives_nothing_out(self) -> None:
        async with self.executor() as executor:
            compare(await pmap(double, [], executor=executor), [], "a run over nothing")

    async def test_single_calls_have_their_results(self) -> None:
        async with self.executor() as executor:
            got = [await executor.run(double, 4), await executor.run(add, 1, b=2), await executor.run(int)]
            compare(got, [8, 3, 0], "await executor.run(...), with one argument, with a keyword, and without any")

    async def test_several_iterables_are_zipped(self) -> None:
        async with self.executor() as executor:
            results = await pmap(add, range(30), numbers(40), executor=executor, batch_size=4)
        compare(results, [2 * x for x in range(30)], "calls with two arguments, of which one iterable is longer")

    async def test_coroutine_functions_run_where_the_executor_is_named(self) -> None:
        async with self.executor() as executor:
            results = await pmap(double_soon, range(40), executor=executor, concurrency=3)
        compare(results, [2 * x for x in range(40)], "a coroutine function")

    async def test_a_function_that_only_this_program_has_can_be_mapped(self) -> None:
        offset = 3
        async with self.executor() as executor:
            results = await pmap(lambda x: x + offset, range(10), executor=executor)
        compare(results, [x + 3 for x in range(10)], "a lambda with a closure")

    async def test_each_call_is_made_exactly_once(self, tmp_path: Path) -> None:
        marking = Marking(tmp_path)
        async with self.executor() as executor:
            await pmap(marking, range(100), executor=executor)
            if executor.traits.may_rerun:
                assert set(marking.begun) == set(range(100)), "some calls were never made"
                return
        often = {x: count for x, count in marking.begun.items() if count != 1}
        assert marking.begun == Counter(range(100)), f"calls that were made more than once: {often}; traits.may_rerun is False"

    @pytest.mark.parametrize("kind", ["generator", "async generator"])
    async def test_no_more_is_pulled_than_the_window_holds(self, kind: str) -> None:
        pulled = 0

        def source() -> Iterator[int]:
            nonlocal pulled
            for pulled in itertools.count(1):
                yield pulled

        async def async_source() -> AsyncIterator[int]:
            for number in source():
                yield number

        async with self.executor() as executor:
            iterable: Any = source() if kind == "generator" else async_source()
            async with pmap(double, iterable, executor=executor, buffersize=6) as results:
                for handed in range(40):
                    assert await anext(results) == 2 * (handed + 1)
                    held = pulled - handed
                    assert held <= 6, f"{held} items are pulled and not yet handed, though buffersize is 6"

    async def test_a_batch_past_its_budget_gives_the_rest_back(self) -> None:
        items = list(range(200))
        async with self.executor() as executor:
            session = executor.open(Program(nap), Hints())
            parcel = session.pack(Batch(range(1000, 1200), (items,)), 1e-9)
            if parcel.unfinished:
                parcel.finish()
            place = await session.lease()
            try:
                answer = await place.run(parcel)
                done = await read(answer)
            finally:
                session.release(place)
                session.close()
        made = len(done.values)
        assert made >= 1, "no call was made, so the run would never make progress: at least one must be made in every batch"
        assert made < 200, "all calls of the batch were made though its time budget was over after the first call"
        compare(done.values, items[:made], "values of the calls that were made")
        assert not done.errors, f"calls failed that cannot: {done.errors}"
        given_back = [(index, item) for rest in done.rest for index, item in zip(rest.indices, rest.columns[0], strict=True)]
        compare(sorted(given_back), [(1000 + x, x) for x in range(made, 200)], "calls in BatchDone.rest, as (index, item)")
        assert sum(calls for calls, _ in done.timings) == made, "the timings do not add up to the calls that were made"
        if not executor.traits.may_rerun:
            assert {rest.attempts for rest in done.rest} == {1}, "calls that were never started are reported as started"
