"""Where distributed is not installed, every door says so at once, and how to install it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

import asyncpar
from asyncpar import ExecutorUnavailableError

DOORS: list[Callable[[], object]] = [
    asyncpar.DaskExecutor,
    lambda: asyncpar.pmap(abs, [1], executor="dask"),
    lambda: asyncpar.map(abs, [1], executor="dask"),
    lambda: asyncpar.call(abs, 1, executor="dask"),
    lambda: asyncpar.Parallel(2, backend="dask")([asyncpar.delayed(abs)(1)]),
]


@pytest.mark.parametrize("door", DOORS)
def test_a_program_without_distributed_is_told_what_to_install(
    door: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ExecutorUnavailableError, match=r"pip install asyncpar\[dask\]"):
        door()
