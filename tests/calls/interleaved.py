"""Coroutine calls that share the event loop of a worker with others, and some that misuse it."""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import time
from pathlib import Path
from typing import Any

set_by_calls: contextvars.ContextVar[int] = contextvars.ContextVar("set_by_calls", default=0)


class Gate:
    """A file: calls note that they have come, and wait until it is opened."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def open(self) -> None:
        (self.directory / "open").touch()

    @property
    def is_open(self) -> bool:
        return (self.directory / "open").exists()

    def note(self, x: object) -> None:
        with (self.directory / "came").open("a") as file:
            file.write(f"{x}\n")

    @property
    def came(self) -> list[str]:
        """What calls have noted so far."""
        path = self.directory / "came"
        return path.read_text().split() if path.exists() else []

    async def wait(self, x: Any) -> Any:
        """Waits for it, if `x` is negative."""
        self.note(x)
        while x < 0 and not self.is_open:
            await asyncio.sleep(0.001)
        return x

    async def wait_in_spite_of_all(self, x: Any) -> Any:
        """Swallows every cancellation."""
        self.note(x)
        while not self.is_open:
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                continue
        return x

    async def hold_the_loop(self, x: Any) -> Any:
        """Never awaits, and so no other call in its worker goes on."""
        self.note(x)
        while not self.is_open:
            time.sleep(0.001)  # noqa: ASYNC251 - as it should not
        return x

    async def fail_at_zero(self, x: int) -> int:
        self.note(x)
        await asyncio.sleep(0)
        if not x:
            raise ValueError(x)
        return x

    async def open_at_second_attempt(self, x: int) -> int:
        """Zero fails at first, and opens the gate when it is called again. The others wait for it."""
        before = self.came.count(str(x))
        self.note(x)
        if not x and not before:
            raise ValueError(x)
        if not x:
            self.open()
        while not self.is_open:
            await asyncio.sleep(0.001)
        return x

    async def cancel_the_others(self, x: Any) -> Any:
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()
        return x

    async def die_once_others_came(self, others: int) -> None:
        while len(self.came) < others:
            await asyncio.sleep(0.001)
        self.open()
        os._exit(7)


async def wait_at(gate: Gate, x: Any) -> Any:
    """Can be imported, so that runs that have it may share what workers know of it."""
    return await gate.wait(x)


async def echo(x: Any) -> Any:
    await asyncio.sleep(0)
    return x


async def length(data: bytes) -> int:
    await asyncio.sleep(0)
    return len(data)


async def many_bytes(count: int) -> bytes:
    await asyncio.sleep(0)
    return bytes(count)


def many_bytes_at_once(count: int) -> bytes:
    return bytes(count)


async def process_id_soon(_: object) -> int:
    await asyncio.sleep(0)
    return os.getpid()


async def count_in_context(_: object) -> int:
    """What it finds in its context, where it leaves one more."""
    found = set_by_calls.get()
    set_by_calls.set(found + 1)
    await asyncio.sleep(0)
    return found


async def exit_in_a_task(x: Any) -> Any:
    async def leave() -> None:
        sys.exit(3)

    task = asyncio.create_task(leave())
    while not task.done():
        await asyncio.sleep(0.001)
    task.exception()  # which is then not reported
    return x


async def await_a_task_that_exits(_: object) -> None:
    async def leave() -> None:
        sys.exit(3)

    await asyncio.create_task(leave())


async def begin_tasks_at_once() -> bool:
    """Whether Python can do that."""
    factory = getattr(asyncio, "eager_task_factory", None)
    asyncio.get_running_loop().set_task_factory(factory)
    return factory is not None


def have_no_uvloop() -> None:
    """Later imports of it fail, as if it were not installed."""
    sys.modules["uvloop"] = None  # type: ignore[assignment]


async def echo_at_once(x: Any) -> Any:
    return x


async def stop_the_loop(x: Any) -> Any:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.001)
    return x


async def fail(x: Any) -> None:
    raise ValueError(x)


class InterruptsPickling:
    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


class Results:
    """Of a batch: one that breaks the answer, and one that comes when the gate is open."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    async def __call__(self, x: int) -> Any:
        return await self.gate.wait_in_spite_of_all(x) if x < 0 else InterruptsPickling()


class DiesWhenRead:
    def __reduce__(self) -> Any:
        return os._exit, (7,)


async def obey(order: tuple[int, str, float, bytes]) -> tuple[int, bytes]:
    """Does what the random stress tells it to."""
    number, what, seconds, payload = order
    await asyncio.sleep(seconds)
    if what == "fail":
        raise ValueError(number)
    if what == "die":
        os._exit(7)
    if what == "exit":
        await exit_in_a_task(number)
    return number, payload


def obey_at_once(order: tuple[int, str, float, bytes]) -> tuple[int, bytes]:
    number, what, seconds, payload = order
    time.sleep(seconds)
    if what == "fail":
        raise ValueError(number)
    if what == "die":
        os._exit(7)
    return number, payload
