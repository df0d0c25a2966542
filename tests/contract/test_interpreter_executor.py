"""The interpreter executor passes the kit, and does what no other executor does."""

from __future__ import annotations

import ctypes
import functools
import importlib
import math
import os
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import numpy as np
import pytest

from asyncpar import (
    CallTimeoutError,
    ExecutorSaturatedError,
    ExecutorUnavailableError,
    InterpreterExecutor,
    PicklingError,
    pmap,
)
from asyncpar.testing import ExecutorContract
from asyncpar.testing.ends import Ends
from asyncpar.testing.sharing import Sharing
from tests.calls import interpreted
from tests.functions import double, raise_value_error
from tests.interpreters import needs_interpreters
from tests.loops import on_one_loop
from tests.waiting import wait_until

pytestmark = needs_interpreters

LARGE = 1 << 20


def make_interpreters() -> InterpreterExecutor:
    return InterpreterExecutor(2)


def change_places(executor: Any, places: int) -> None:
    executor.pool.resize(places)


@on_one_loop
class TestInterpreterExecutor(ExecutorContract):
    def make_executor(self) -> InterpreterExecutor:
        return make_interpreters()

    def change_places(self, executor: Any, places: int) -> None:
        change_places(executor, places)


@pytest.mark.parametrize("anyio_backend", [pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"), "trio"], indirect=True)
class TestInterpretersOnOtherLoops(Ends, Sharing):
    """What has to do with the event loop."""

    def make_executor(self) -> InterpreterExecutor:
        return make_interpreters()

    def change_places(self, executor: Any, places: int) -> None:
        change_places(executor, places)


@pytest.fixture
async def executor(anyio_backend: object) -> AsyncIterator[InterpreterExecutor]:
    async with InterpreterExecutor(2) as executor:
        yield executor


async def cancel_once(executor: InterpreterExecutor, began: Path, fn: Any, *arguments: Any) -> None:
    """Cancels a call when it has begun."""
    async with anyio.create_task_group() as group:
        group.start_soon(functools.partial(executor.run, fn, *arguments))
        await wait_until(began.exists)
        group.cancel_scope.cancel()


# Where calls run, and what they are


@on_one_loop
async def test_calls_run_in_this_process_with_modules_of_their_own(executor: InterpreterExecutor) -> None:
    process, thread = await executor.run(interpreted.where)
    assert process == os.getpid()
    assert thread != threading.get_ident()
    assert await executor.run(interpreted.remember, 1) == [1]
    assert interpreted.state == []
    assert await executor.run(interpreted.arguments_of_the_program) == (sys.argv, True)


@on_one_loop
async def test_functions_of_any_origin_run_there(executor: InterpreterExecutor) -> None:
    factor = 3

    def by_closure(x: int) -> int:
        return factor * x

    class Local:
        def __init__(self, value: int) -> None:
            self.value = value

        def times(self, x: int) -> Local:
            return Local(self.value * x)

    assert await pmap(by_closure, range(3), executor=executor) == [0, 3, 6]
    assert await pmap(lambda x: x + factor, range(3), executor=executor) == [3, 4, 5]
    assert await pmap(functools.partial(pow, 2), range(3), executor=executor) == [1, 2, 4]
    assert await pmap(math.sqrt, [4.0], executor=executor) == [2.0]
    assert [local.value for local in await pmap(Local(2).times, range(3), executor=executor)] == [0, 2, 4]
    assert type((await pmap(Local(2).times, [1], executor=executor))[0]) is Local


@on_one_loop
async def test_an_error_arrives_with_the_traceback_of_its_interpreter(executor: InterpreterExecutor) -> None:
    with pytest.raises(ValueError, match="bad 4") as caught:
        await pmap(raise_value_error, [4], executor=executor)
    assert "in raise_value_error" in str(caught.value.__cause__)
    assert "interpreter worker" in "".join(caught.value.__notes__)


@on_one_loop
async def test_an_initializer_runs_before_the_first_call_and_its_error_is_raised() -> None:
    async with InterpreterExecutor(1, initializer=interpreted.remember, initargs=(5,)) as executor:
        assert await executor.run(interpreted.remember, 6) == [5, 6]
    async with InterpreterExecutor(1, initializer=raise_value_error, initargs=(5,)) as executor:
        with pytest.raises(ValueError, match="bad 5"):
            await executor.run(double, 1)


@on_one_loop
async def test_a_map_in_a_call_runs_inline(executor: InterpreterExecutor) -> None:
    assert await executor.run(interpreted.map_within, 3) == [3, 2, 1]


@on_one_loop
async def test_a_map_in_a_call_is_refused_further_interpreters(executor: InterpreterExecutor) -> None:
    async def nested(_: int) -> list[int]:
        return await pmap(abs, [-1, -2], executor="interpreter")

    with pytest.raises(ExecutorUnavailableError, match="an interpreter cannot have interpreters of its own"):
        await pmap(nested, [1], executor=executor)


@on_one_loop
async def test_a_module_that_cannot_be_loaded_there_is_named_with_a_remedy(executor: InterpreterExecutor) -> None:
    for fn, argument in ((interpreted.import_module, "numpy"), (np.sum, [1, 2])):
        with pytest.raises(ImportError) as caught:
            await executor.run(fn, argument)
        notes = "".join(caught.value.__notes__)
        assert "the module 'numpy" in notes
        assert "only in the main interpreter of a process" in notes
        assert 'use executor="process"' in notes


@on_one_loop
async def test_a_module_that_is_reloaded_is_reloaded_there_too(
    executor: InterpreterExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "changing.py"
    file.write_text("def answer(): return 1")
    module = importlib.import_module("changing")
    assert await executor.run(module.answer) == 1
    file.write_text("def answer(): return 1000")
    importlib.invalidate_caches()
    importlib.reload(module)
    assert await executor.run(module.answer) == 1000
    monkeypatch.delitem(sys.modules, "changing")


@on_one_loop
async def test_calls_beyond_max_pending_are_refused() -> None:
    async with InterpreterExecutor(1, max_pending=0, when_full="raise") as executor, anyio.create_task_group() as group:
        group.start_soon(executor.run, interpreted.spin)
        await wait_until(lambda: executor.pool.started)
        with pytest.raises(ExecutorSaturatedError):
            await executor.run(double, 1)
        group.cancel_scope.cancel()


@on_one_loop
async def test_idle_interpreters_are_closed() -> None:
    async with InterpreterExecutor(1, idle_timeout=0.05) as executor:
        await executor.run(double, 1)
        await wait_until(lambda: not executor._workers)
        assert await executor.run(double, 1) == 2


# Memory


@on_one_loop
async def test_large_memory_is_seen_where_it_lies(executor: InterpreterExecutor) -> None:
    memory = bytearray(LARGE)
    address = interpreted.address_of(memory)
    (there,) = await pmap(interpreted.address_of, [memoryview(memory)], executor=executor, mmap_mode="r+")
    assert there == address
    await pmap(interpreted.fill, [memoryview(memory)], executor=executor, mmap_mode="r+")
    assert memory == bytes([7]) * LARGE


@on_one_loop
async def test_what_is_shown_is_read_only_unless_asked_for_otherwise(executor: InterpreterExecutor) -> None:
    memory = bytearray(LARGE)
    with pytest.raises(TypeError, match="read-only") as caught:
        await executor.run(interpreted.fill, memoryview(memory))
    assert 'mmap_mode="r+"' in "".join(caught.value.__notes__)
    await pmap(interpreted.fill, [memoryview(memory)], executor=executor, mmap_mode="c")
    await pmap(interpreted.fill, [memoryview(memory)], executor=executor, mmap_mode=None)
    await pmap(interpreted.fill, [memoryview(memory)], executor=executor, max_nbytes=None)
    assert memory == bytes(LARGE)


@on_one_loop
async def test_arrays_arrive_as_views_with_their_shape(executor: InterpreterExecutor) -> None:
    array = np.arange(6.0).reshape(2, 3)
    kind, letter, shape, _, content = await executor.run(interpreted.describe, array)
    assert (kind, letter, shape, content) == ("memoryview", "d", (2, 3), array.tolist())
    for odd in (array.T, array[:, ::2], array[:0], np.array(3, "i4"), np.array([True, False])):
        assert (await executor.run(interpreted.describe, odd))[-1] == odd.tolist()
    rows = await pmap(interpreted.describe, array, executor=executor)
    assert [row[-1] for row in rows] == array.tolist()
    assert await pmap(double, np.arange(3), executor=executor) == [0, 2, 4]
    assert await pmap(type, [np.float32(1), np.int8(1), np.bool_(True)], executor=executor) == [float, int, bool]


@on_one_loop
async def test_an_array_of_no_plain_numbers_is_refused(executor: InterpreterExecutor) -> None:
    for array in (np.array(["2026-01-01"], "M8[D]"), np.array([1j]), np.array([1], ">i4")):
        with pytest.raises(PicklingError, match='use executor="process"'):
            await executor.run(double, array)


@on_one_loop
async def test_a_view_of_no_plain_numbers_is_refused(executor: InterpreterExecutor) -> None:
    view = memoryview((ctypes.c_int * 3)())  # "<i"
    with pytest.raises(PicklingError, match=r"format '<i' cannot be shown.*view\.cast\('B'\)"):
        await executor.run(interpreted.describe, view)


@on_one_loop
async def test_an_item_that_cannot_be_read_leaves_the_views_of_others_alone(executor: InterpreterExecutor) -> None:
    view = memoryview(bytes(LARGE))
    items = [(view, None), (view, interpreted.Unreadable()), (view, None)]
    results = await pmap(interpreted.length_of_first, items, executor=executor, batch_size=3, on_error="return")
    assert [results[0], type(results[1]), results[2]] == [LARGE, ValueError, LARGE]


@on_one_loop
async def test_results_outlive_their_interpreter() -> None:
    async with InterpreterExecutor(1) as executor:
        view = await executor.run(interpreted.make_view, LARGE)
        text = await executor.run(bytes, LARGE)
    assert view.tobytes() == b"v" * LARGE
    assert text == bytes(LARGE)


@on_one_loop
async def test_large_texts_and_large_functions_arrive(executor: InterpreterExecutor) -> None:
    text = os.urandom(LARGE)
    table = bytearray(text)
    assert await executor.run(bytes.__len__, text) == LARGE
    assert await pmap(bytes, [table], executor=executor) == [text]
    assert await pmap(lambda x: table[x], range(5), executor=executor) == list(text[:5])
    memory = memoryview(text)
    assert await pmap(lambda x: memory[x], range(5), executor=executor) == list(text[:5])


# Stopping


async def test_an_endless_loop_is_cancelled_and_its_interpreter_goes_on(executor: InterpreterExecutor, tmp_path: Path) -> None:
    assert await executor.run(interpreted.remember, 1) == [1]
    await cancel_once(executor, tmp_path / "began", interpreted.mark_and_spin, tmp_path)
    assert await executor.run(interpreted.remember, 2) == [1, 2]


@on_one_loop
async def test_a_function_is_sent_again_whose_reading_was_interrupted(
    executor: InterpreterExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, may_end = tmp_path / "began", tmp_path / "may_end"
    source = f"""
from pathlib import Path
Path({str(began)!r}).touch()
while not Path({str(may_end)!r}).exists(): pass
def negative(x): return -x
"""
    (tmp_path / "long_to_import.py").write_text(source)
    module = ModuleType("long_to_import")
    may_end.touch()
    exec(source, module.__dict__)
    began.unlink()
    may_end.unlink()
    monkeypatch.setitem(sys.modules, "long_to_import", module)
    monkeypatch.syspath_prepend(tmp_path)
    await cancel_once(executor, began, module.negative, 1)
    may_end.touch()
    assert await executor.run(module.negative, 2) == -2


@on_one_loop
async def test_a_package_that_was_being_imported_when_its_call_was_cancelled_is_not_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, began = tmp_path / "long_package", tmp_path / "began"
    package.mkdir()
    (package / "part.py").write_text("names = ['part']")
    (package / "__init__.py").write_text(
        f"""
import time
from pathlib import Path
from .part import *
Path({str(began)!r}).touch()
end = time.monotonic() + 0.1
while time.monotonic() < end: pass
found = part.names
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    async with InterpreterExecutor(1) as executor:
        await cancel_once(executor, began, interpreted.names_in, "long_package")
        assert await executor.run(interpreted.names_in, "long_package") == ["part"]


@on_one_loop
async def test_code_that_catches_the_interruption_is_interrupted_again(executor: InterpreterExecutor) -> None:
    await executor.run(interpreted.remember, 1)
    with anyio.move_on_after(0.05):
        await executor.run(interpreted.refuse_to_end, 3)
    assert await executor.run(interpreted.remember, 2) == [1, 2]


@on_one_loop
async def test_coroutine_calls_that_wait_are_cancelled(executor: InterpreterExecutor, tmp_path: Path) -> None:
    await executor.run(interpreted.remember, 1)
    await cancel_once(executor, tmp_path / "began", interpreted.mark_and_wait, tmp_path)
    assert await executor.run(interpreted.remember, 2) == [1, 2]
    assert await executor.run(interpreted.wait_at_three, 2) == 2


async def test_a_coroutine_call_that_cancels_all_tasks_is_made_once(executor: InterpreterExecutor) -> None:
    assert await pmap(interpreted.cancel_all_others, range(3), executor=executor, concurrency=1) == [0, 1, 2]


async def test_a_call_stuck_in_c_code_is_left_and_keeps_its_place(tmp_path: Path) -> None:
    async with InterpreterExecutor(1) as executor:
        await cancel_once(executor, tmp_path / "began", interpreted.mark_and_sleep, tmp_path, 1.0)
        assert not (tmp_path / "ended").exists()
        assert executor.pool.started == 1
        assert await executor.run(double, 2) == 4  # in a new one, for which it has waited
        await wait_until(lambda: len(executor._workers) == 1)


@on_one_loop
@pytest.mark.parametrize(
    "fn",
    [
        interpreted.spin_at_three,
        interpreted.sleep_at_three,
        interpreted.wait_at_three,
        interpreted.hold_the_loop_at_three,
    ],
)
async def test_only_the_call_that_takes_too_long_times_out(executor: InterpreterExecutor, fn: Any) -> None:
    results = await pmap(fn, range(6), executor=executor, timeout=0.1, batch_size=6, on_error="return")
    assert isinstance(results[3], CallTimeoutError)
    assert results[3].index == 3
    assert results[:3] + results[4:] == [0, 1, 2, 4, 5]


@on_one_loop
async def test_timeouts_that_come_as_calls_end_hit_no_other_call(executor: InterpreterExecutor) -> None:
    timeout = 0.01
    for round_number in range(8):
        items = [(number, timeout * (0.85 + 0.03 * ((number + round_number) % 12))) for number in range(12)]
        results = await pmap(interpreted.spin_for, items, executor=executor, timeout=timeout, batch_size=4, on_error="return")
        for number, result in enumerate(results):
            assert result == number or (isinstance(result, CallTimeoutError) and result.index == number)


async def test_closing_a_busy_executor_ends_its_calls(tmp_path: Path) -> None:
    executor = InterpreterExecutor(1)
    async with anyio.create_task_group() as group:

        async def run() -> None:
            with pytest.raises(ExecutorUnavailableError, match="was closed while this run was using it"):
                await executor.run(interpreted.mark_and_spin, tmp_path)

        group.start_soon(run)
        await wait_until((tmp_path / "began").exists)
        await executor.aclose()
    assert not executor._workers
