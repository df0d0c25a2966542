"""Where there are no interpreters, every door says so at once, and what to use instead."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

import asyncpar
from asyncpar import ExecutorUnavailableError

DOORS: list[Callable[[], object]] = [
    asyncpar.InterpreterExecutor,
    lambda: asyncpar.pmap(abs, [1], executor="interpreter"),
    lambda: asyncpar.map(abs, [1], executor="interpreter"),
    lambda: asyncpar.call(abs, 1, executor="interpreter"),
    lambda: asyncpar.PoolExecutor(executor="interpreter"),
    lambda: asyncpar.Parallel(2, backend="interpreter")([asyncpar.delayed(abs)(1)]),
]


@pytest.mark.parametrize("door", DOORS)
def test_a_python_without_interpreters_is_told_so(door: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "concurrent.interpreters", None)
    with pytest.raises(ExecutorUnavailableError, match=r'need CPython 3\.14 or newer, .* use executor="process"'):
        door()
