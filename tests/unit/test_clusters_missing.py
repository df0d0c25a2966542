"""Where distributed or ray is not installed, every door says so at once, and how to install it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

import asyncpar
from asyncpar import ExecutorUnavailableError

DOORS: list[Callable[[str], object]] = [
    lambda name: {"dask": asyncpar.DaskExecutor, "ray": asyncpar.RayExecutor}[name](),
    lambda name: asyncpar.pmap(abs, [1], executor=name),
    lambda name: asyncpar.map(abs, [1], executor=name),
    lambda name: asyncpar.call(abs, 1, executor=name),
    lambda name: asyncpar.Parallel(2, backend=name)([asyncpar.delayed(abs)(1)]),
]


@pytest.mark.parametrize(("name", "package"), [("dask", "distributed"), ("ray", "ray")])
@pytest.mark.parametrize("door", DOORS)
def test_a_program_without_the_package_is_told_what_to_install(
    name: str, package: str, door: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExecutorUnavailableError, match=rf"pip install asyncpar\[{name}\]"):
        door(name)
