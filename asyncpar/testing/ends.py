"""Runs and executors end as they should, whatever ends them, and leave nothing behind."""

from __future__ import annotations

import gc
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from asyncpar._contract.executor import Executor
from asyncpar._map.pmap import pmap
from asyncpar.errors import ExecutorUnavailableError
from asyncpar.testing.functions import Marking, Refused, Spinning, double, double_soon
from asyncpar.testing.kit import Kit, compare, wait_until, wrong
from asyncpar.testing.leftovers import belongings, busy_threads, join_new_threads, left_since


class Source:
    """Endless numbers, and whether they have been closed."""

    closed = False

    def sync(self) -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            self.closed = True

    async def asynchronous(self) -> AsyncIterator[int]:
        try:
            for number in itertools.count():
                yield number
        finally:
            self.closed = True


async def consume(results: Any) -> None:
    await results


class Ends(Kit):
    @pytest.mark.parametrize("kind", ["sync", "asynchronous"])
    async def test_leaving_a_stream_closes_its_source(self, kind: str) -> None:
        source = Source()
        async with self.executor() as executor:
            async with pmap(double, getattr(source, kind)(), executor=executor) as results:
                compare([await anext(results), await anext(results)], [0, 2], "the first results")
            assert source.closed, "the source is not closed when the block around the results has been left"
            await self.check_usable(executor, "a stream that was left early")

    async def test_a_run_whose_await_is_cancelled_ends_and_its_executor_serves_the_next(self) -> None:
        source = Source()
        async with self.executor() as executor:
            for _ in range(5):  # more often than there are places; each must come back
                with anyio.move_on_after(0.02) as scope:
                    await pmap(double, source.asynchronous(), executor=executor)
                assert scope.cancelled_caught, "a run over an endless source came to an end"
                assert source.closed, "the source of a run that was cancelled is not closed"
            await self.check_usable(executor, "five that were cancelled")

    async def test_cancelling_does_with_a_running_call_what_the_traits_say(self, tmp_path: Path) -> None:
        """ "kill": it is gone. "between_calls": it goes on, but no further one begins. "never": only the executor works."""
        if self.holds_event_loop:
            pytest.skip("a call that holds up the event loop cannot be cancelled")
        async with self.executor() as executor:
            stops = executor.traits.stops
            if stops == "kill":
                await self._check_that_a_call_is_killed(executor, Spinning(tmp_path / "count"))
            else:
                await self._check_that_a_call_is_left(executor, Marking(tmp_path, waits=True), stops)

    async def _check_that_a_call_is_killed(self, executor: Executor, spinning: Spinning) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(consume, pmap(spinning, range(2), executor=executor, batch_size=1))
            await wait_until(lambda: spinning.count, "a call begins")
            group.cancel_scope.cancel()
        count = spinning.count
        await anyio.sleep(0.1)
        if spinning.count != count:
            wrong('a call goes on after its run was cancelled, though traits.stops is "kill"')
        await self.check_usable(executor, "one whose calls were killed")

    async def _check_that_a_call_is_left(self, executor: Executor, marking: Marking, stops: str) -> None:
        async def let_go() -> None:
            await anyio.sleep(0.1)  # the cancellation has arrived by then
            marking.let_go()

        async with anyio.create_task_group() as outer, anyio.create_task_group() as group:
            group.start_soon(consume, pmap(marking, range(5), executor=executor, batch_size=5))
            await wait_until(lambda: marking.begun, "a call begins")
            outer.start_soon(let_go)  # an executor may wait for the end of a call that it cannot stop
            group.cancel_scope.cancel()
        await self.check_usable(executor, "one that was cancelled while a call was running")
        if stops == "between_calls":
            await anyio.sleep(0.05)
            begun = sorted(marking.begun)
            assert begun == [0], f'calls {begun[1:]} began after their run was cancelled; traits.stops is "between_calls"'

    async def test_an_executor_serves_run_after_run(self) -> None:
        async with self.executor() as executor:
            for number in range(1, 8):
                compare(await pmap(double, range(number), executor=executor), [2 * x for x in range(number)], f"run {number}")

    async def test_an_executor_serves_a_run_after_one_that_failed(self, tmp_path: Path) -> None:
        marking = Marking(tmp_path, refuses=(0, 3))
        async with self.executor() as executor:
            for _ in range(5):
                with pytest.raises(Refused):
                    await pmap(marking, range(50), executor=executor, batch_size=1)
            await self.check_usable(executor, "five that failed")

    async def test_an_executor_may_be_closed_twice_and_serves_nobody_then(self) -> None:
        async with self.executor() as executor:
            await self.check_usable(executor, "nothing")
            await executor.aclose()
            await executor.aclose()
            assert executor.closed, "executor.closed is False after aclose()"
            with pytest.raises(ExecutorUnavailableError):
                await pmap(double, [1], executor=executor)

    def test_nothing_is_left_behind(self, anyio_backend: str | tuple[str, dict[str, Any]], tmp_path: Path) -> None:
        """Checks the second and the third use. What the first use leaves for good, such as a pipe of the event loop, is not
        left by each executor.
        """
        threads = busy_threads()

        def use() -> None:
            backend, options = (anyio_backend, {}) if isinstance(anyio_backend, str) else anyio_backend
            anyio.run(self._use_in_many_ways, backend=backend, backend_options=options)
            gc.collect()
            join_new_threads(threads)

        use()
        before = belongings(tmp_path)
        use()
        use()
        left = left_since(before, tmp_path)
        assert not left, f"an executor that was closed has left behind: {left}"

    async def _use_in_many_ways(self) -> None:
        async with self.executor() as executor:
            await self.check_usable(executor, "nothing")
            await pmap(double_soon, range(5), executor=executor)
            async with pmap(double, itertools.count(), executor=executor) as results:
                await anext(results)
            with anyio.move_on_after(0.01):
                await pmap(double, Source().asynchronous(), executor=executor)
        if not executor.closed:
            wrong("an executor is not closed when its `async with` has been left")
