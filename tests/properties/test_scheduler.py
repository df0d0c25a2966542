"""Guarantees 1 to 3 of the scheduler, over an executor that finishes, fails, dies and dawdles as hypothesis tells it to."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpar import pmap
from asyncpar._contract.batches import BatchDone
from asyncpar._contract.executor import Parcel, Place
from asyncpar._contract.lending import PooledExecutor


class Moody(Place):
    """Doubles what it is given. `moods` says, batch after batch, how many turns of the event loop it takes, and after how many
    calls it gives the rest of the batch back undone, as a worker that died would. `sizes`: how many places there are while the
    next batches run, and after each of them.
    """

    def __init__(self, executor: MoodyExecutor) -> None:
        self._executor = executor

    async def run(self, parcel: Parcel) -> BatchDone:
        turns, done = next(self._executor.moods)
        meanwhile, afterwards = next(self._executor.sizes, (None, None))
        batch = parcel.batch
        self._executor.under_way += 1
        self._executor.most_under_way = max(self._executor.most_under_way, self._executor.under_way)
        try:
            if meanwhile is not None:
                self._executor.pool.resize(meanwhile)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
        finally:
            self._executor.under_way -= 1
            if afterwards is not None:
                self._executor.pool.resize(afterwards)
        done = len(batch) if done is None else min(done, len(batch))
        items = batch.columns[0][:done]
        self._executor.executed += list(items)
        values = [2 * item for item in items]
        errors: dict[int, BaseException] = {}
        for position, item in enumerate(items):
            if item in self._executor.bad:
                errors[position] = ValueError(item)
                values[position] = None
        rest = (batch.part(done, len(batch)),) if done < len(batch) else ()
        return BatchDone(batch.part(0, done), values, errors, ((done, 1e-4 * done),), "moody", rest)


class MoodyExecutor(PooledExecutor[Moody]):
    def __init__(self, size: int, moods: list[tuple[int, int | None]], bad: set[int], sizes: list[tuple[int, int]]) -> None:
        super().__init__(size)
        self.sizes = iter(sizes)
        self.moods = itertools.chain(moods, itertools.repeat((0, None)))
        self.bad = bad
        self.executed: list[int] = []
        self.under_way = self.most_under_way = 0

    async def start_place(self) -> Moody:
        return Moody(self)


class Pulled:
    """A source that counts what has been pulled from it."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.pulled = 0

    def sync(self) -> Iterator[int]:
        for number in range(self.length):
            self.pulled += 1
            yield number

    async def asynchronous(self) -> AsyncIterator[int]:
        for number in self.sync():
            await anyio.lowlevel.checkpoint()
            yield number


settings_of_runs = st.fixed_dictionaries(
    {
        "length": st.integers(0, 60),
        "size": st.integers(1, 4),
        "sizes": st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), max_size=10),
        "moods": st.lists(st.tuples(st.integers(0, 4), st.none() | st.integers(0, 5)), max_size=40),
        "bad": st.sets(st.integers(0, 60), max_size=5),
        "kind": st.sampled_from(["sync", "asynchronous", "list"]),
        "ordered": st.booleans(),
        "batch_size": st.sampled_from(["auto", 1, 3, 10]),
        "buffersize": st.none() | st.integers(1, 30),
        "n_jobs": st.none() | st.integers(1, 4),
        "backend": st.sampled_from(["asyncio", "trio"]),
        "slow_consumer": st.booleans(),
    }
)


@given(settings_of_runs)
@settings(max_examples=300)
def test_every_item_comes_out_once_and_the_window_holds(run: dict[str, Any]) -> None:
    anyio.run(stream_and_check, run, backend=run["backend"])


async def stream_and_check(run: dict[str, Any]) -> None:
    executor, source, options = set_up(run)
    outcomes = []
    async with pmap(int, source_of(source, run), executor=executor, **options) as results:
        stream = results.outcomes()
        async for outcome in stream:
            outcomes.append(outcome)
            statistics = results.statistics()
            assert statistics.pulled - statistics.handed <= max(statistics.window, run["length"] * (run["buffersize"] is None))
            if run["buffersize"] is not None and run["kind"] != "list":
                assert source.pulled - len(outcomes) <= run["buffersize"]
            if run["slow_consumer"]:
                await anyio.lowlevel.checkpoint()
    indices = [outcome.index for outcome in outcomes]
    assert sorted(indices) == list(range(run["length"]))
    if run["ordered"]:
        assert indices == sorted(indices)
    for outcome in outcomes:
        assert (outcome.error is not None) == (outcome.index in run["bad"])
        assert outcome.value == (None if outcome.error is not None else 2 * outcome.index)
    assert sorted(executor.executed) == list(range(run["length"]))
    assert executor.most_under_way <= min(max([run["size"], *map(max, run["sizes"])]), run["n_jobs"] or 4)


@given(settings_of_runs, st.sampled_from(["return", "skip"]))
@settings(max_examples=200)
def test_awaiting_gives_the_list_that_a_comprehension_gives(run: dict[str, Any], on_error: Any) -> None:
    async def check() -> None:
        executor, source, options = set_up(run)
        got = await pmap(int, source_of(source, run), executor=executor, on_error=on_error, **options)
        expected = [2 * x for x in range(run["length"]) if x not in run["bad"]]
        assert sorted(x for x in got if not isinstance(x, ValueError)) == expected
        if run["ordered"]:
            assert [x for x in got if not isinstance(x, ValueError)] == expected
        if on_error == "return":
            assert len(got) == run["length"]

    anyio.run(check, backend=run["backend"])


@given(settings_of_runs, st.integers(0, 30))
@settings(max_examples=200)
def test_leaving_early_at_any_point_leaves_no_batch_under_way(run: dict[str, Any], leave_after: int) -> None:
    async def check() -> None:
        executor, source, options = set_up(run)
        async with pmap(int, source_of(source, run), executor=executor, on_error="skip", **options) as results:
            for _ in range(leave_after):
                if await anext(results, None) is None:
                    break
        assert executor.under_way == 0
        executed = len(executor.executed)
        await anyio.lowlevel.checkpoint()
        assert len(executor.executed) == executed
        assert executor.pool.started == len(executor.pool.idle)  # every worker has come back

    anyio.run(check, backend=run["backend"])


def set_up(run: dict[str, Any]) -> tuple[MoodyExecutor, Pulled, dict[str, Any]]:
    options = {name: run[name] for name in ("ordered", "batch_size", "buffersize", "n_jobs")}
    return MoodyExecutor(run["size"], run["moods"], run["bad"], run["sizes"]), Pulled(run["length"]), options


def source_of(source: Pulled, run: dict[str, Any]) -> Any:
    return list(range(run["length"])) if run["kind"] == "list" else getattr(source, run["kind"])()
