"""What a type checker makes of `Memory`: this file is checked by mypy and pyright, and never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from asyncpar import MemorizedResult, Memory

if TYPE_CHECKING:
    memory = Memory("folder")

    @memory.cache
    def length(text: str, most: int = 0) -> int: ...

    @memory.cache(ignore=["most"])
    def shortened(text: str, most: int = 0) -> str: ...

    @memory.cache
    async def fetch(url: str) -> bytes: ...

    async def check_results() -> None:
        assert_type(length("a"), int)
        assert_type(shortened("a", most=1), str)
        assert_type(await fetch("a"), bytes)
        assert_type(await length.acall("a"), int)
        assert_type(await fetch.call_and_shelve("a"), MemorizedResult)
        assert_type(memory.eval(len, "a"), int)
        length(1)  # type: ignore[arg-type]
        length("a", least=1)  # type: ignore[call-arg]
