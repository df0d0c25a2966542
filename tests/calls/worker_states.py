"""Initializers of every kind, which note what happens to them, and calls that look at their worker. For interpreters, too."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Self

import asyncpar

STATE = "the state"
mark: ContextVar[str] = ContextVar("mark", default="unset")


def note(notes: Path, text: str) -> None:
    """Adds a line, in one piece, whoever else does so."""
    with notes.open("a") as file:
        file.write(f"{text}\n")


def notes_in(notes: Path) -> list[str]:
    return notes.read_text().split() if notes.exists() else []


def plain(notes: Path) -> str:
    note(notes, "entered")
    return STATE


async def coroutine(notes: Path) -> str:
    await turn()
    note(notes, "entered")
    return STATE


def generator(notes: Path) -> Iterator[str]:
    note(notes, "entered")
    yield STATE
    note(notes, "left")


async def async_generator(notes: Path) -> AsyncIterator[str]:
    await turn()
    note(notes, "entered")
    yield STATE
    await turn()
    note(notes, "left")


class Manager:
    """`with Manager(notes) as state`."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes

    def __enter__(self) -> str:
        note(self.notes, "entered")
        return STATE

    def __exit__(self, *_: object) -> None:
        note(self.notes, "left")


class AsyncManager:
    """`async with AsyncManager(notes) as state`. It refuses `with`, as clients of HTTP do, and can be awaited, as pools can."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes

    def __enter__(self) -> Self:
        raise TypeError("use async with")

    def __exit__(self, *_: object) -> None:
        raise AssertionError

    def __await__(self) -> Any:
        raise AssertionError

    async def __aenter__(self) -> str:
        await turn()
        note(self.notes, "entered")
        return STATE

    async def __aexit__(self, *_: object) -> None:
        await turn()
        note(self.notes, "left")


async def coroutine_with_manager(notes: Path) -> Manager:
    await turn()
    return Manager(notes)


async def coroutine_with_async_manager(notes: Path) -> AsyncManager:
    await turn()
    return AsyncManager(notes)


class Opener:
    """A callable object whose call is a coroutine function."""

    async def __call__(self, notes: Path) -> str:
        await turn()
        note(notes, "entered")
        return STATE


async def turn() -> None:
    """Gives way to the event loop once."""
    import asyncio

    await asyncio.sleep(0)


LEFT_AGAIN: dict[str, Callable[..., Any]] = {
    "generator": generator,
    "async generator": async_generator,
    "partial of a generator": partial(generator),
    "contextmanager": contextmanager(generator),
    "asynccontextmanager": asynccontextmanager(async_generator),
    "context manager": Manager,
    "async context manager": AsyncManager,
    "coroutine with a context manager": coroutine_with_manager,
    "coroutine with an async context manager": coroutine_with_async_manager,
}
EVERY_KIND: dict[str, Callable[..., Any]] = {
    "plain": plain,
    "coroutine": coroutine,
    "callable with a coroutine": Opener(),
    **LEFT_AGAIN,
}


def look(_: object = None) -> tuple[str, int, Any]:
    worker = asyncpar.current_worker()
    return worker.executor, worker.index, worker.state


async def look_soon(_: object = None) -> tuple[str, int, Any]:
    await turn()
    return look()


async def look_at_once(_: object = None) -> tuple[str, int, Any]:
    """In any event loop."""
    return look()


def index(_: object = None) -> int:
    return asyncpar.current_worker().index


def index_when_all_are_there(directory: Path, name: int, count: int) -> int:
    """Waits for `count` calls, so that each has a worker of its own."""
    (directory / str(name)).touch()
    while len(list(directory.iterdir())) < count:
        time.sleep(0.001)
    return index()


def look_in_initializer() -> tuple[str, int, str]:
    worker = asyncpar.current_worker()
    try:
        return worker.executor, worker.index, worker.state
    except RuntimeError as error:
        return worker.executor, worker.index, str(error)


def fail() -> NoReturn:
    raise LookupError("no licence")


async def fail_soon() -> NoReturn:
    await turn()
    raise LookupError("no licence")


def fail_before_yield() -> Iterator[int]:
    yield len(fail())


async def fail_before_async_yield() -> AsyncIterator[int]:
    await turn()
    yield len(fail())


def exit_program() -> NoReturn:
    sys.exit(3)


def never_yields() -> Iterator[None]:
    yield from ()


FAILING: dict[str, Callable[..., Any]] = {
    "plain": fail,
    "coroutine": fail_soon,
    "generator": fail_before_yield,
    "async generator": fail_before_async_yield,
}


def fail_at_end() -> Iterator[None]:
    yield
    raise LookupError("cannot be flushed")


async def fail_at_async_end() -> AsyncIterator[None]:
    yield
    await turn()
    raise LookupError("cannot be flushed")


def exit_at_end() -> Iterator[None]:
    yield
    sys.exit("cannot be flushed")


def yields_twice() -> Iterator[None]:
    yield
    yield


def spin_at_end(notes: Path) -> Iterator[None]:
    yield
    note(notes, "leaving")
    while True:
        pass


async def sleep_at_end(notes: Path) -> AsyncIterator[None]:
    import asyncio

    yield
    note(notes, "leaving")
    await asyncio.sleep(1000)


def wait_at_start(notes: Path) -> Iterator[None]:
    """Until somebody notes something else."""
    note(notes, "entering")
    while notes_in(notes)[-1] == "entering":
        time.sleep(0.001)
    yield
    note(notes, "left")


def wait_at_end(notes: Path) -> Iterator[None]:
    """Until somebody notes something else."""
    yield
    note(notes, "leaving")
    while notes_in(notes)[-1] == "leaving":
        time.sleep(0.001)
    note(notes, "left")


def linger_as_first(notes: Path) -> Iterator[None]:
    """Like `wait_at_end`, in the first worker only."""
    yield from wait_at_end(notes) if index() == 0 else iter([None])


def thread_and_place(_: object = None) -> tuple[int, int, int]:
    """The thread of the call, the one in which the state was entered, and the index."""
    worker = asyncpar.current_worker()
    return threading.get_ident(), worker.state, worker.index


def own_thread(notes: Path) -> Iterator[int]:
    entered_in = threading.get_ident()
    yield entered_in
    note(notes, "same" if threading.get_ident() == entered_in else "other")


def open_database(notes: Path) -> Iterator[sqlite3.Connection]:
    """A connection that refuses to be used, or closed, in another thread."""
    connection = sqlite3.connect(":memory:")
    yield connection
    connection.close()
    note(notes, "closed")


def square_by_sql(x: int) -> int:
    connection: sqlite3.Connection = asyncpar.current_worker().state
    (result,) = connection.execute("SELECT ? * ?", (x, x)).fetchone()
    return int(result)


async def group_of_tasks(notes: Path) -> AsyncIterator[tuple[Any, Any]]:
    """What belongs to the task that entered it, and to its event loop: a task group with a task, and a timeout."""
    import asyncio

    ended = asyncio.Event()

    async def wait() -> None:
        await ended.wait()
        note(notes, "task-ended")

    async with asyncio.timeout(1000), asyncio.TaskGroup() as group:
        group.create_task(wait())
        yield asyncio.get_running_loop(), ended
        ended.set()
    note(notes, "left")


async def is_in_loop_of_state(_: object = None) -> bool:
    import asyncio

    loop, _ended = asyncpar.current_worker().state
    return asyncio.get_running_loop() is loop


async def caller_mark(_: object = None) -> str:
    await turn()
    return mark.get()


def kill_own_worker(_: object = None) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def fork_and_return(_: object = None) -> int:
    """The copy returns, too."""
    os.fork()
    return 1


def fork_with_multiprocessing(_: object = None) -> int | None:
    import multiprocessing

    child = multiprocessing.get_context("fork").Process(target=len, args=([],))
    child.start()
    child.join()
    return child.exitcode


async def interrupt_loop_once(mark_file: Path) -> tuple[str, int, Any]:
    """The first time, something that asyncio lets out of its event loop does what an interruption does that hits the loop."""
    import asyncio

    from asyncpar._child.protocol import CallInterrupted

    class Interruption(CallInterrupted, SystemExit):
        pass

    async def interrupt() -> NoReturn:
        raise Interruption

    if not mark_file.exists():
        mark_file.touch()
        await asyncio.wait([asyncio.create_task(interrupt())])
    return look()


async def wait_in_loop() -> NoReturn:
    import asyncio

    await asyncio.sleep(1000)
    raise AssertionError


def imported(name: str) -> bool:
    return name in sys.modules


def nested_looks(_: object = None) -> list[tuple[str, int, Any]]:
    """What calls in calls see: in a thread, inline, and here again."""
    in_thread = asyncpar.call(look, executor="thread")
    return [in_thread, asyncpar.call(look, executor="inline"), look()]


async def cancel_all_tasks() -> None:
    import asyncio

    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await turn()
    await turn()


async def note_when_cancelled(notes: Path) -> None:
    import asyncio

    note(notes, "begun")
    try:
        await asyncio.Event().wait()
    finally:
        note(notes, "cancelled")
