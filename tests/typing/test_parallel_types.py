"""What a type checker makes of `Parallel` and `delayed`: this file is checked by mypy and pyright, and never run."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, assert_type

from asyncpar import Parallel, delayed, parallel_config

if TYPE_CHECKING:

    def length(text: str, *, times: int = 1) -> int: ...

    def check_results() -> None:
        assert_type(Parallel(n_jobs=2)(delayed(length)(text) for text in ["a"]), list[int])
        assert_type(Parallel(n_jobs=-1, return_as="list", verbose=5)([delayed(length)("a", times=2)]), list[int])
        with Parallel(n_jobs=2, prefer="threads") as parallel, parallel_config("loky", n_jobs=2):
            assert_type(parallel([delayed(length)("a")]), list[int])

    def check_positional_arguments(return_as: str) -> None:
        assert_type(Parallel(2, "threading")([delayed(length)("a")]), list[int])
        Parallel(2, "threading", return_as, 10)([delayed(length)("a")])

    def check_generators() -> None:
        results = Parallel(n_jobs=2, return_as="generator")(delayed(length)(text) for text in ["a"])
        assert_type(results, Generator[int, None, None])
        unordered = Parallel(n_jobs=2, return_as="generator_unordered")([delayed(length)("a")])
        assert_type(unordered, Generator[int, None, None])

    def check_what_is_refused() -> None:
        delayed(length)(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        delayed(length)("a", many=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
