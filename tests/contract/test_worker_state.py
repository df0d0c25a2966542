"""The state of a worker: what its initializer makes, when it is entered and left, and what calls see of it."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

import asyncpar
from asyncpar import CallTimeoutError, InterpreterExecutor, ProcessExecutor, ThreadExecutor, WorkerDiedError, pmap
from tests.calls import worker_states as calls
from tests.calls.worker_states import EVERY_KIND, FAILING, LEFT_AGAIN, STATE, notes_in
from tests.functions import process_id
from tests.interpreters import needs_interpreters, with_interpreters
from tests.loops import on_one_loop
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

ALL = ["process", "thread", with_interpreters("interpreter")]
on_all = pytest.mark.parametrize("kind", ALL)
PATIENT = 60.0  # seconds of grace on a busy machine; nothing waits for them


def make(kind: str, workers: int, initializer: Callable[..., Any] | None, *initargs: Any) -> Any:
    if kind == "process":
        return ProcessExecutor(workers, initializer=initializer, initargs=initargs, grace=PATIENT)
    if kind == "thread":
        return ThreadExecutor(workers, initializer=initializer, initargs=initargs)
    return InterpreterExecutor(workers, initializer=initializer, initargs=initargs)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


@on_one_loop
@on_all
@pytest.mark.parametrize("initializer", EVERY_KIND.values(), ids=EVERY_KIND)
async def test_its_value_reaches_plain_and_coroutine_calls(kind: str, initializer: Any, notes: Path) -> None:
    async with make(kind, 1, initializer, notes) as executor:
        assert await pmap(calls.look, range(3), executor=executor) == [(kind, 0, STATE)] * 3
        assert await pmap(calls.look_soon, range(3), executor=executor) == [(kind, 0, STATE)] * 3
        assert await executor.run(calls.look) == (kind, 0, STATE)
        assert notes_in(notes) == ["entered"]


@on_one_loop
@on_all
@pytest.mark.parametrize("initializer", LEFT_AGAIN.values(), ids=LEFT_AGAIN)
async def test_closing_the_executor_leaves_it_once_in_each_worker(kind: str, initializer: Any, tmp_path: Path) -> None:
    notes, here = tmp_path / "notes", tmp_path / "here"
    here.mkdir()
    async with make(kind, 2, initializer, notes) as executor:
        both = await pmap(
            functools.partial(calls.index_when_all_are_there, here, count=2), range(2), executor=executor, batch_size=1
        )
        assert sorted(both) == [0, 1]
        assert notes_in(notes) == ["entered", "entered"]
    assert notes_in(notes)[2:] == ["left", "left"]


@on_all
@pytest.mark.parametrize("initializer", [calls.generator, calls.async_generator])
async def test_it_is_entered_and_left_in_every_event_loop(kind: str, initializer: Any, notes: Path) -> None:
    async with make(kind, 1, initializer, notes) as executor:
        assert await pmap(calls.look, [0], executor=executor) == [(kind, 0, STATE)]
        assert await pmap(calls.look_soon, [0], executor=executor) == [(kind, 0, STATE)]
    assert notes_in(notes) == ["entered", "left"]


@on_one_loop
@on_all
async def test_without_an_initializer_it_is_none(kind: str) -> None:
    async with make(kind, 1, None) as executor:
        assert await executor.run(calls.look) == (kind, 0, None)
        assert await executor.run(calls.look_soon) == (kind, 0, None)


@on_one_loop
@on_all
async def test_in_the_initializer_there_is_an_index_but_no_state(kind: str) -> None:
    async with make(kind, 1, calls.look_in_initializer) as executor:
        _, _, (seen_kind, index, error) = await executor.run(calls.look)
    assert (seen_kind, index) == (kind, 0)
    assert error == f"<{kind} worker with index 0> has no state: its initializer has not made it yet, or it has been left"


@on_one_loop
async def test_a_coroutine_call_that_cancels_all_tasks_does_not_end_it(notes: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with make("process", 1, calls.async_generator, notes) as executor:
        await executor.run(calls.cancel_all_tasks)
        assert notes_in(notes) == ["entered"]
        assert await executor.run(calls.look_soon) == ("process", 0, STATE)
    assert notes_in(notes) == ["entered", "left"]
    assert not capfd.readouterr().err


@on_one_loop
async def test_coroutine_calls_that_are_under_way_end_before_it_is_left(notes: Path) -> None:
    async with anyio.create_task_group() as group:
        executor = make("process", 1, calls.async_generator, notes)

        async def run() -> None:
            with pytest.raises(asyncpar.ExecutorUnavailableError):
                await executor.run(calls.note_when_cancelled, notes)

        group.start_soon(run)
        await wait_until(lambda: notes_in(notes) == ["entered", "begun"])
        await executor.aclose()
    assert notes_in(notes) == ["entered", "begun", "cancelled", "left"]


@on_one_loop
async def test_a_worker_that_needs_no_event_loop_imports_none(notes: Path) -> None:
    async with make("process", 1, calls.generator, notes) as executor:
        assert not await executor.run(calls.imported, "asyncio")


# When it is left


@pytest.mark.parametrize("kind", ["process", with_interpreters("interpreter")])
async def test_a_worker_that_has_been_idle_for_long_leaves_it(kind: str, notes: Path) -> None:
    make_executor = ProcessExecutor if kind == "process" else InterpreterExecutor
    async with make_executor(1, initializer=calls.async_generator, initargs=(notes,), idle_timeout=0.01) as executor:
        await executor.run(calls.look)
        await wait_until(lambda: notes_in(notes) == ["entered", "left"])
        assert await executor.run(calls.index) == 0


async def test_a_worker_that_has_made_its_last_call_leaves_it(notes: Path) -> None:
    async with ProcessExecutor(
        1, initializer=calls.generator, initargs=(notes,), max_calls_per_worker=1, grace=PATIENT
    ) as executor:
        assert await pmap(calls.index, range(3), executor=executor) == [0, 0, 0]
        assert notes_in(notes) == ["entered", "left"] * 3


async def test_a_worker_that_is_killed_leaves_nothing_and_its_successor_makes_its_own(notes: Path) -> None:
    async with make("process", 1, calls.generator, notes) as executor:
        with pytest.raises(WorkerDiedError):
            await executor.run(calls.kill_own_worker)
        assert await executor.run(calls.look) == ("process", 0, STATE)
        assert notes_in(notes) == ["entered", "entered"]
    assert notes_in(notes) == ["entered", "entered", "left"]


@on_one_loop
@pytest.mark.parametrize("fork", [calls.fork_and_return, calls.fork_with_multiprocessing])
@pytest.mark.parametrize("initializer", [calls.generator, calls.async_generator])
async def test_a_forked_copy_of_a_worker_does_not_leave_it(fork: Any, initializer: Any, notes: Path) -> None:
    async with make("process", 1, initializer, notes) as executor:
        await executor.run(fork)
        assert await executor.run(calls.look) == ("process", 0, STATE)
        assert notes_in(notes) == ["entered"]
    assert notes_in(notes) == ["entered", "left"]


@pytest.mark.parametrize("initializer", [calls.spin_at_end, calls.sleep_at_end])
async def test_a_process_that_takes_too_long_for_leaving_it_is_killed(initializer: Any, notes: Path) -> None:
    async with ProcessExecutor(1, initializer=initializer, initargs=(notes,), grace=0.2) as executor:
        worker = psutil.Process(await executor.run(process_id, 0))
    assert not worker.is_running()
    assert notes_in(notes) == ["leaving"]


@needs_interpreters
@pytest.mark.parametrize("initializer", [calls.spin_at_end, calls.sleep_at_end])
async def test_an_interpreter_that_takes_too_long_for_leaving_it_is_interrupted(
    initializer: Any, notes: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with make("interpreter", 1, initializer, notes) as executor:
        await executor.run(calls.index)
    assert notes_in(notes) == ["leaving"]  # and the test leaves no thread behind
    assert f"initializer {initializer.__name__} of the interpreter worker with index 0" in capfd.readouterr().err


async def test_closing_waits_until_threads_have_left_it(notes: Path) -> None:
    async def let_go() -> None:
        await wait_until(lambda: notes_in(notes) == ["leaving"])
        calls.note(notes, "go-on")

    async with anyio.create_task_group() as group:
        async with make("thread", 1, calls.wait_at_end, notes) as executor:
            await executor.run(calls.index)
            group.start_soon(let_go)
        assert notes_in(notes) == ["leaving", "go-on", "left"]


async def test_closing_waits_for_a_thread_that_is_leaving_it_after_an_abandoned_call(notes: Path) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait()

    async def close() -> None:
        await executor.aclose()
        assert notes_in(notes) == ["leaving", "go-on", "left"]

    async with make("thread", 1, calls.wait_at_end, notes) as executor:
        async with anyio.create_task_group() as group:
            group.start_soon(executor.run, wait)
            await wait_until(begun.is_set)
            group.cancel_scope.cancel()
        go_on.set()
        await wait_until(lambda: notes_in(notes) == ["leaving"])
        async with anyio.create_task_group() as group:
            group.start_soon(close)
            await anyio.wait_all_tasks_blocked()
            calls.note(notes, "go-on")


def test_threads_leave_it_when_their_event_loop_is_closed_by_hand(notes: Path) -> None:
    executor = make("thread", 1, calls.generator, notes)
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(executor.run(calls.look))
    finally:
        loop.close()
    anyio.run(wait_until, lambda: notes_in(notes) == ["entered", "left"])


@on_one_loop
async def test_closing_does_not_wait_for_ever_for_a_thread(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncpar.executors.thread._LEAVING_SECONDS", 0.01)
    async with make("thread", 1, calls.wait_at_end, notes) as executor:
        await executor.run(calls.index)
        await executor.aclose()
        await wait_until(lambda: notes_in(notes) == ["leaving"])
    calls.note(notes, "go-on")
    await wait_until(lambda: notes_in(notes)[-1] == "left")


@on_one_loop
@on_all
@pytest.mark.parametrize("initializer", [calls.fail_at_end, calls.fail_at_async_end, calls.exit_at_end])
async def test_an_error_while_it_is_left_is_printed(kind: str, initializer: Any, capfd: pytest.CaptureFixture[str]) -> None:
    async with make(kind, 1, initializer) as executor:
        await executor.run(calls.index)
    printed = capfd.readouterr().err
    assert "cannot be flushed" in printed
    assert f"in {initializer.__name__}" in printed  # a traceback
    assert (
        f"asyncpar: raised while the state was left that the initializer {initializer.__name__} of the {kind} worker with "
        "index 0 has made"
    ) in printed


# What belongs to a thread, a task, or an event loop


async def test_calls_of_a_thread_worker_run_in_the_thread_that_has_entered_it(notes: Path) -> None:
    async with make("thread", 3, calls.own_thread, notes) as executor:
        seen = set(await pmap(calls.thread_and_place, range(60), executor=executor, batch_size=1))
        assert all(thread == entered_in for thread, entered_in, _ in seen)
        assert len({index for _, _, index in seen}) == len({thread for thread, _, _ in seen})
    assert set(notes_in(notes)) == {"same"}


@on_one_loop
@on_all
async def test_a_database_connection_serves_the_calls_of_its_worker(kind: str, notes: Path) -> None:
    async with make(kind, 2, calls.open_database, notes) as executor:
        assert await pmap(calls.square_by_sql, range(20), executor=executor, batch_size=2) == [x * x for x in range(20)]
    assert set(notes_in(notes)) == {"closed"}


@on_all
async def test_an_asynchronous_one_is_left_in_the_task_and_the_event_loop_that_entered_it(
    kind: str, notes: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with make(kind, 1, calls.group_of_tasks, notes) as executor:
        assert await pmap(calls.is_in_loop_of_state, range(3), executor=executor, batch_size=1) == [True] * 3
    assert notes_in(notes) == ["task-ended", "left"]
    assert capfd.readouterr().err == ""


async def test_coroutine_calls_in_a_thread_with_a_state_see_their_callers_context(notes: Path) -> None:
    async with make("thread", 1, calls.coroutine, notes) as executor:
        for value in ("first", "second"):
            calls.mark.set(value)
            assert await executor.run(calls.caller_mark) == value


@needs_interpreters
async def test_an_interpreter_whose_event_loop_was_interrupted_makes_it_anew(notes: Path, tmp_path: Path) -> None:
    async with make("interpreter", 1, calls.async_generator, notes) as executor:
        await executor.run(calls.look_soon)
        assert await executor.run(calls.interrupt_loop_once, tmp_path / "mark") == ("interpreter", 0, STATE)
        assert notes_in(notes) == ["entered", "left", "entered"]
    assert notes_in(notes) == ["entered", "left"] * 2


@needs_interpreters
async def test_an_interrupted_event_loop_does_not_end_a_state_outside_of_it(notes: Path, tmp_path: Path) -> None:
    async with make("interpreter", 1, calls.generator, notes) as executor:
        assert await executor.run(calls.interrupt_loop_once, tmp_path / "mark") == ("interpreter", 0, STATE)
        assert notes_in(notes) == ["entered"]
    assert notes_in(notes) == ["entered", "left"]


# Errors


@on_one_loop
@pytest.mark.parametrize("kind", ["process", with_interpreters("interpreter")])
@pytest.mark.parametrize("initializer", [calls.fail_at_end, calls.fail_at_async_end])
async def test_an_error_while_it_is_left_shows_nothing_but_the_users_code(
    kind: str, initializer: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    async with make(kind, 1, initializer) as executor:
        await executor.run(calls.index)
    printed = capfd.readouterr().err
    assert "LookupError: cannot be flushed" in printed
    assert "EOFError" not in printed


@on_one_loop
@on_all
@pytest.mark.parametrize("initializer", FAILING.values(), ids=FAILING)
async def test_an_error_of_the_initializer_names_it(kind: str, initializer: Any) -> None:
    async with make(kind, 1, initializer) as executor:
        for _ in range(2):
            with pytest.raises(LookupError, match="no licence") as caught:
                await pmap(calls.look, range(3), executor=executor)
            named = f"asyncpar: raised by the initializer {initializer.__name__} of the {kind} worker with index 0"
            assert named in caught.value.__notes__


@on_one_loop
@on_all
async def test_an_initializer_cannot_end_the_program(kind: str) -> None:
    async with make(kind, 1, calls.exit_program) as executor:
        with pytest.raises(RuntimeError, match=f"the initializer exit_program of the {kind} worker .* raised SystemExit: 3"):
            await executor.run(calls.look)


@on_one_loop
@on_all
async def test_an_initializer_cannot_end_an_iteration_of_the_program(kind: str) -> None:
    async with make(kind, 1, next, iter([])) as executor:
        with pytest.raises(RuntimeError, match=f"the initializer next of the {kind} worker with index 0 raised StopIteration"):
            await executor.run(calls.look)


@on_one_loop
@on_all
async def test_a_generator_that_does_not_yield_once_is_an_error(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    async with make(kind, 1, calls.never_yields) as executor:
        with pytest.raises(RuntimeError, match="generator didn't yield"):
            await executor.run(calls.look)
    async with make(kind, 1, calls.yields_twice) as executor:
        await executor.run(calls.look)
    assert "generator didn't stop" in capfd.readouterr().err


@pytest.mark.parametrize("initializer", [5, "open", calls.generator(Path("nowhere"))])
@pytest.mark.parametrize("kind", ALL)
async def test_what_cannot_be_called_is_refused(kind: str, initializer: Any) -> None:
    with pytest.raises(TypeError, match=r"initializer must be callable, not .*pass the function itself"):
        make(kind, 1, initializer)


async def test_arguments_of_the_initializer_that_are_none_are_refused() -> None:
    arguments: Any = 5
    with pytest.raises(TypeError, match="initargs must be a tuple of the arguments of initializer, not 5"):
        ThreadExecutor(1, initializer=len, initargs=arguments)


@pytest.mark.parametrize("kind", ["process", with_interpreters("interpreter")])
@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.1])
async def test_a_run_may_be_cancelled_before_the_initializer_begins_or_while_it_waits(kind: str, seconds: float) -> None:
    async with make(kind, 1, calls.wait_in_loop) as executor:
        with anyio.move_on_after(seconds) as scope:
            await executor.run(calls.look)
        assert scope.cancelled_caught


async def test_a_thread_whose_run_was_cancelled_while_it_was_entered_leaves_it_at_once(notes: Path) -> None:
    async with make("thread", 1, calls.wait_at_start, notes) as executor:
        async with anyio.create_task_group() as group:
            group.start_soon(executor.run, calls.look)
            await wait_until(lambda: notes_in(notes) == ["entering"])
            group.cancel_scope.cancel()
        calls.note(notes, "go-on")
        await wait_until(lambda: notes_in(notes)[-1] == "left")
    assert notes_in(notes) == ["entering", "go-on", "left"]


# Indices


@on_one_loop
@on_all
async def test_workers_of_an_executor_have_different_indices(kind: str, tmp_path: Path) -> None:
    async with make(kind, 3, None) as executor:
        seen = await pmap(
            functools.partial(calls.index_when_all_are_there, tmp_path, count=3), range(3), executor=executor, batch_size=1
        )
    assert sorted(seen) == [0, 1, 2]


async def test_a_worker_that_replaces_a_dead_one_takes_over_its_index(tmp_path: Path) -> None:
    async with make("process", 3, None) as executor:
        for round_ in range(3):
            here = tmp_path / str(round_)
            here.mkdir()
            together = functools.partial(calls.index_when_all_are_there, here, count=3)
            assert sorted(await pmap(together, range(3), executor=executor, batch_size=1)) == [0, 1, 2]
            with pytest.raises(WorkerDiedError):
                await executor.run(calls.kill_own_worker)


@on_one_loop
async def test_a_worker_that_is_begun_while_another_leaves_its_state_has_another_index(notes: Path) -> None:
    async with ProcessExecutor(
        2, initializer=calls.linger_as_first, initargs=(notes,), idle_timeout=0.01, grace=PATIENT
    ) as executor:
        assert await executor.run(calls.index) == 0
        await wait_until(lambda: notes_in(notes) == ["leaving"])
        assert await executor.run(calls.index) == 1
        calls.note(notes, "go-on")


@on_one_loop
@pytest.mark.parametrize("initializer", [None, calls.own_thread])
async def test_a_thread_that_is_left_to_an_overdue_call_leaves_its_index_to_the_next(initializer: Any, notes: Path) -> None:
    go_on = threading.Event()

    def wait(_: object) -> None:
        go_on.wait()

    async with make("thread", 1, initializer, *([notes] if initializer else [])) as executor:
        with pytest.raises(CallTimeoutError):
            await pmap(wait, [0], executor=executor, timeout=0.01)
        assert await executor.run(calls.index) == 0
        go_on.set()
    if initializer:
        await wait_until(lambda: notes_in(notes) == ["same", "same"])


async def test_a_thread_that_a_cancelled_run_has_left_keeps_its_index_until_its_call_has_ended(notes: Path) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait()

    async with make("thread", 2, calls.own_thread, notes) as executor, anyio.create_task_group() as group:
        group.start_soon(executor.run, wait)
        await wait_until(begun.is_set)
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            assert [await executor.run(calls.index) for _ in range(3)] == [1, 1, 1]
            go_on.set()
            await wait_until(lambda: notes_in(notes) == ["same"])


# Where there is no worker


async def test_a_call_in_the_callers_own_thread_sees_index_0_and_no_state() -> None:
    inline = ("inline", 0, None)
    assert await pmap(calls.look, range(2), executor="inline") == [inline, inline]
    assert await asyncpar.run(calls.look, executor="inline") == inline
    assert await pmap(calls.look_at_once, range(2), executor="inline") == [inline, inline]
    assert await pmap(calls.look_at_once, range(2)) == [inline, inline]
    assert asyncpar.call(calls.look, executor="inline") == inline
    assert list(asyncpar.map(calls.look, range(2), executor="inline")) == [inline, inline]
    for retries in (0, 1):
        assert asyncpar.Parallel(n_jobs=1, retries=retries)([asyncpar.delayed(calls.look)()]) == [inline]


@on_one_loop
async def test_outside_of_a_call_it_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"outside of a worker; call it in a function that pmap, run or the like calls"):
        asyncpar.current_worker()
    await pmap(calls.look_soon, range(2))
    await pmap(calls.look, range(2), executor="inline")
    with pytest.raises(RuntimeError, match="outside of a worker"):
        asyncpar.current_worker()


@on_one_loop
async def test_a_pool_of_others_has_no_workers_of_ours() -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="outside of a worker"):
        await pmap(calls.look, [0], executor=pool)


@on_one_loop
async def test_nor_has_one_that_is_used_within_a_call() -> None:
    with ThreadPoolExecutor(1) as pool:

        async def look_in_pool(_: object) -> None:
            await pmap(calls.look, [0], executor=pool)

        with pytest.raises(RuntimeError, match="outside of a worker"):
            await pmap(look_in_pool, [0])


@on_one_loop
async def test_a_call_in_a_call_sees_the_innermost_worker(notes: Path) -> None:
    async with make("process", 1, calls.plain, notes) as executor:
        outer = ("process", 0, STATE)
        assert await executor.run(calls.nested_looks) == [("thread", 0, None), outer, outer]
