"""What a type checker makes of single calls and of the doors for code that is not async: checked, and never run."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, assert_type

import asyncpar
from asyncpar import InterpreterExecutor, ProcessExecutor, ThreadExecutor

if TYPE_CHECKING:

    def length(text: str) -> int: ...

    async def fetch(url: str) -> bytes: ...

    def add(a: int, b: float) -> float: ...

    async def check_single_calls(executor: ProcessExecutor) -> None:
        assert_type(await asyncpar.run(length, "a"), int)
        assert_type(await asyncpar.run(fetch, "a", timeout=3), bytes)
        assert_type(await executor.run(add, 1, b=2.0, timeout=3), float)
        assert_type(await executor.run(fetch, "a"), bytes)

    def check_blocking_calls() -> None:
        assert_type(asyncpar.call(length, "a"), int)
        assert_type(asyncpar.call(fetch, "a", executor="process"), bytes)

    def check_blocking_maps() -> None:
        assert_type(asyncpar.map(length, ["a"]), Generator[int, None, None])
        assert_type(asyncpar.map(fetch, ["a"], ordered=False), Generator[bytes, None, None])
        assert_type(asyncpar.map(add, [1], [2.0]), Generator[float, None, None])
        assert_type(asyncpar.map(length, ["a"], on_error="return"), Generator[int | BaseException, None, None])
        asyncpar.map(length, [1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
        asyncpar.map(length, ["a"], buffersize="many")  # type: ignore[call-overload]  # pyright: ignore

    def check_workers() -> None:
        assert_type(asyncpar.current_worker(), asyncpar.CurrentWorker)
        assert_type(asyncpar.current_worker().index, int)
        ThreadExecutor(2, initializer=fetch, initargs=("a",))

    def check_limits() -> None:
        ThreadExecutor(2, max_pending=3, when_full="raise")
        InterpreterExecutor(2, initializer=length, initargs=("a",), idle_timeout=5.0, max_pending=3, when_full="raise")
        ThreadExecutor(2, when_full="refuse")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
