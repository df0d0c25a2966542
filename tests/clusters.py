"""What calls, errors and data look like on their way to any cluster and back: the tests that its executor inherits."""

from __future__ import annotations

import operator
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncpar import Executor, Memory, PicklingError, current_call, current_worker, pmap, run
from asyncpar.testing.functions import Marking, Refused, double
from tests.calls.pools import Large, map_inside


def writes(array: Any) -> str:
    try:
        array[0] = 7
    except ValueError as error:
        return str(error)
    return "written"


def draw(x: int) -> tuple[int, float]:
    return x, current_call().rng.random()


def our_index(_: int) -> int:
    return current_worker().index


class OnAnyCluster:
    """A module of tests derives a class from it, and has a fixture `executor`."""

    async def test_closures_travel_and_outcomes_name_their_workers(self, executor: Executor) -> None:
        step = 3
        outcomes = [outcome async for outcome in pmap(lambda x: x + step, range(100), executor=executor).outcomes()]
        assert [outcome.value for outcome in outcomes] == list(range(3, 103))
        assert all(outcome.worker.startswith("worker ") for outcome in outcomes)
        assert {outcome.attempts for outcome in outcomes} == {1}

    async def test_a_single_call_is_made(self, executor: Executor) -> None:
        assert await run(pow, 2, 10, executor=executor) == 1024
        with pytest.raises(ZeroDivisionError):
            await executor.run(operator.truediv, 1, 0)

    async def test_an_error_has_the_traceback_of_its_worker_and_names_its_call(
        self, executor: Executor, tmp_path: Path
    ) -> None:
        with pytest.raises(Refused) as caught:
            await pmap(Marking(tmp_path, refuses=(5,)), range(10), executor=executor)
        assert "raise Refused" in str(caught.value.__cause__)
        assert any("call 5, item 5" in note for note in caught.value.__notes__)

    async def test_a_large_array_is_sent_once_and_arrives_read_only(self, executor: Executor) -> None:
        array = np.ones(1_000_000)
        results = pmap(writes, [array] * 6, executor=executor, batch_size=1)
        assert set(await results) == {"assignment destination is read-only"}
        statistics = results.statistics()
        assert statistics.shared_bytes == array.nbytes
        assert statistics.inline_bytes < 100_000
        assert statistics.zero_copy_hits == 5

    async def test_a_copy_is_made_for_calls_that_want_to_write(self, executor: Executor) -> None:
        array = np.ones(1_000_000)
        assert set(await pmap(writes, [array] * 4, executor=executor, batch_size=1, mmap_mode=None)) == {"written"}
        assert (array == 1).all()

    async def test_arrays_within_a_function_are_sent_once_too_and_results_can_be_written(self, executor: Executor) -> None:
        array = np.arange(1_000_000)
        results = pmap(partial(np.add, array), range(20), executor=executor, batch_size=1)
        for number, values in enumerate(await results):
            assert values[5] == 5 + number
            values += 1
        assert results.statistics().shared_bytes <= 1.1 * array.nbytes

    async def test_a_large_function_is_sent_once(self, executor: Executor, tmp_path: Path) -> None:
        results = pmap(Large(tmp_path), range(60), executor=executor, batch_size=1)
        assert [x for x, _ in await results] == list(range(60))
        assert results.statistics().inline_bytes < 200_000
        assert len(list(tmp_path.iterdir())) <= 2

    async def test_what_cannot_be_sent_fails_alone(self, executor: Executor) -> None:
        with pytest.raises(PicklingError, match="lock"):
            await pmap(double, [1, threading.Lock()], executor=executor)

    async def test_random_streams_do_not_depend_on_the_executor(self, executor: Executor) -> None:
        assert await pmap(draw, range(20), executor=executor, seed=5) == await pmap(draw, range(20), executor="inline", seed=5)

    async def test_results_are_found_in_a_cache_and_stored_there(self, executor: Executor, tmp_path: Path) -> None:
        memory, marking = Memory(tmp_path / "cache", verbose=0), Marking(tmp_path)
        for _ in range(2):
            assert await pmap(marking, range(10), executor=executor, cache=memory) == list(range(10))
        assert set(marking.begun.values()) == {1}

    async def test_maps_in_calls_do_not_multiply_processes(self, executor: Executor) -> None:
        assert await pmap(map_inside, range(3), executor=executor) == [[0, 0], [0, 1], [0, 2]]

    async def test_a_call_finds_no_worker_of_ours(self, executor: Executor) -> None:
        with pytest.raises(RuntimeError, match="current_worker"):
            await pmap(our_index, [0], executor=executor)
