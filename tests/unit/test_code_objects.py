"""Code that is pickled by value is the same code where it arrives, of the same file, and its lines are known there."""

from __future__ import annotations

import asyncio
import functools
import linecache
import pickle
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncpar._wire.pickler import dumps


@pytest.fixture(autouse=True)
def known_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linecache, "cache", dict(linecache.cache))


def by_value(value: Any) -> Any:
    return pickle.loads(dumps(value))


def make_counter(start: int) -> Callable[[int], int]:
    total = start

    def count(step: int, *, twice: bool = False) -> int:
        nonlocal total
        total += step * (2 if twice else 1)
        return total

    return count


def make_class() -> Any:
    class Base:
        def __init__(self, x: int) -> None:
            self.x = x

        def __repr__(self) -> str:
            return f"{type(self).__name__}({self.x})"

    class Derived(Base):
        @property
        def doubled(self) -> int:
            return self.x * 2

        @classmethod
        def default(cls) -> Any:
            return cls(1)

        @staticmethod
        def three() -> int:
            return 3

        def __repr__(self) -> str:
            return f"<{super().__repr__()}>"

    return Derived


def test_closures_keep_their_variables() -> None:
    count = by_value(make_counter(10))
    assert [count(1), count(1, twice=True)] == [11, 13]


def test_lambdas_within_lambdas() -> None:
    assert by_value(lambda x: lambda y, z=3: (x, y, z))(1)(2) == (1, 2, 3)


def test_decorated_functions_keep_what_they_wrap() -> None:
    def logged(fn: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(fn)
        def call(*args: int) -> int:
            return -fn(*args)

        return call

    @logged
    def add(a: int, b: int) -> int:
        return a + b

    again = by_value(add)
    assert (again(1, 2), again.__wrapped__(1, 2), again.__name__) == (-3, 3, "add")


def test_classes_keep_their_methods() -> None:
    code = make_class().__repr__.__code__
    pickled = pickle.loads(dumps(code))
    assert (pickled.co_name, pickled.co_freevars, pickled.co_filename) == ("__repr__", ("__class__",), __file__)
    derived = by_value(make_class())
    assert (repr(derived.default()), derived(4).doubled, derived.three()) == ("<Derived(1)>", 8, 3)


def test_generators_and_coroutine_functions() -> None:
    def numbers(count: int) -> Iterator[int]:
        try:
            yield from range(count)
        finally:
            yield -1

    async def soon(x: int) -> list[int]:
        return [y async for y in later(x)]

    async def later(x: int) -> Any:
        yield x

    assert list(by_value(numbers)(2)) == [0, 1, -1]
    assert asyncio.run(by_value(soon)(3)) == [3]


def test_what_a_traceback_needs_is_kept() -> None:
    code = make_counter(0).__code__
    again = by_value(code)
    assert again == code
    assert (again.co_filename, again.co_qualname) == (__file__, code.co_qualname)
    assert list(again.co_positions()) == list(code.co_positions())
    assert again.co_exceptiontable == code.co_exceptiontable


def test_constants_that_no_compiler_makes() -> None:
    path = Path("somewhere")
    code = (lambda: "here").__code__
    code = code.replace(co_consts=tuple(path if constant == "here" else constant for constant in code.co_consts))
    assert types.FunctionType(by_value(code), {})() == path


CELL = "import math\n\ndef fail(x):\n    return (\n        x /\n        0)\n\ndef fine(x):\n    return x\n"


def make_known(source: str, file_name: str, read_at: float | None = None) -> dict[str, Any]:
    linecache.cache[file_name] = (len(source), read_at, source.splitlines(keepends=True), file_name)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, file_name, "exec"), namespace)
    return namespace


def last_line_of(fn: Callable[[int], object]) -> str:
    try:
        fn(1)
    except ZeroDivisionError as error:
        return str(traceback.extract_tb(error.__traceback__)[-1].line)
    raise AssertionError("it does not fail")


@pytest.mark.parametrize("read_at", [None, 1.5])
def test_the_lines_of_a_cell_are_known_where_its_functions_arrive(read_at: float | None) -> None:
    data = dumps(make_known(CELL, "<cell 1>", read_at)["fail"])
    del linecache.cache["<cell 1>"]
    assert last_line_of(pickle.loads(data)) == "x /"
    assert linecache.getlines("<cell 1>") == ["\n", "\n", "def fail(x):\n", "    return (\n", "        x /\n", "        0)\n"]


def test_functions_of_one_cell_add_their_lines() -> None:
    namespace = make_known(CELL, "<cell 1>")
    fail, fine = dumps(namespace["fail"]), dumps(namespace["fine"])
    for order in (fail, fine), (fine, fail):
        del linecache.cache["<cell 1>"]
        for data in order:
            pickle.loads(data)
        assert linecache.getlines("<cell 1>")[2:] == CELL.splitlines(keepends=True)[2:]


def test_lines_that_are_known_already_stay_as_they_are() -> None:
    data = dumps(make_known(CELL, "<cell 1>")["fail"])
    before = linecache.cache["<cell 1>"]
    pickle.loads(data)
    assert linecache.cache["<cell 1>"] is before


def test_a_function_does_not_carry_the_rest_of_its_cell() -> None:
    large = make_known(CELL + "# more\n" * 100_000, "<cell 1>")["fail"]
    assert len(dumps(large)) < len(dumps(make_known(CELL, "<cell 2>")["fail"])) + 10


def test_nothing_is_sent_of_a_file_that_a_worker_can_read() -> None:
    def fail(x: int) -> float:
        return x / 0

    assert last_line_of(fail) == "return x / 0"
    assert linecache.cache[__file__]
    assert b"return x" not in dumps(fail)
