"""What a type checker makes of `pmap`: this file is checked by mypy and pyright, and never run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, assert_type

from asyncpar import Outcome, ParallelMap, ProcessExecutor, pmap

if TYPE_CHECKING:

    def length(text: str) -> int: ...

    async def fetch(url: str) -> bytes: ...

    def add(a: int, b: float) -> float: ...

    async def add_soon(a: int, b: float) -> float: ...

    def three(a: int, b: int, c: int) -> str: ...

    async def lines() -> AsyncIterator[str]:
        yield ""

    async def check_results() -> None:
        assert_type(await pmap(length, ["a"]), list[int])
        assert_type(await pmap(fetch, ["a"]), list[bytes])
        assert_type(await pmap(length, ["a"], seed=1), list[int])
        assert_type(await pmap(length, lines()), list[int])
        assert_type(await pmap(add, [1], [2.0]), list[float])
        assert_type(await pmap(add_soon, [1], [2.0]), list[float])
        assert_type(await pmap(three, [1], [2], [3]), list[str])
        assert_type(pmap(length, ["a"]), ParallelMap[int])

    async def check_tasks() -> None:
        assert_type(await asyncio.create_task(pmap(length, ["a"])), list[int])
        assert_type(await asyncio.gather(pmap(length, ["a"]), pmap(fetch, ["a"])), tuple[list[int], list[bytes]])
        async with asyncio.TaskGroup() as group:
            assert_type(group.create_task(pmap(fetch, ["a"])), asyncio.Task[list[bytes]])

    async def check_errors_in_results() -> None:
        assert_type(await pmap(length, ["a"], on_error="return"), list[int | BaseException])
        assert_type(await pmap(fetch, ["a"], on_error="return"), list[bytes | BaseException])
        assert_type(await pmap(length, ["a"], on_error="skip"), list[int])
        assert_type(await pmap(fetch, ["a"], rate=10, burst=2.5), list[bytes])

    async def check_streams() -> None:
        async with ProcessExecutor(2) as executor, pmap(length, ["a"], executor=executor, ordered=False) as results:
            async for result in results:
                assert_type(result, int)
        async for outcome in pmap(fetch, ["a"]).outcomes():
            assert_type(outcome, Outcome[bytes])
            assert_type(outcome.unwrap(), bytes)

    async def check_what_is_refused() -> None:
        await pmap(length, [1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
        list(pmap(length, ["a"]))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
        with pmap(length, ["a"]):  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
            pass
        await pmap(length, ["a"], max_workers=2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
        await pmap(length, ["a"], ordred=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
        await pmap(length, ["a"], on_error="ignore")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
