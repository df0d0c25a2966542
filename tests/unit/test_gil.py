"""Where Python runs without a GIL, plain functions run in threads, unless something else is said."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from asyncpar import Parallel, delayed, pmap
from asyncpar._platform.gil import has_gil
from asyncpar._sync.portal import close_portal
from asyncpar.executors import default_name
from tests.functions import process_id
from tests.loops import on_one_loop


@pytest.mark.parametrize(("says", "expected"), [(lambda: True, True), (lambda: False, False), (None, True)])
def test_python_is_asked(monkeypatch: pytest.MonkeyPatch, says: Any, expected: bool) -> None:
    if says is None:  # before 3.13
        monkeypatch.delattr(sys, "_is_gil_enabled", raising=False)
    else:
        monkeypatch.setattr(sys, "_is_gil_enabled", says, raising=False)
    assert has_gil() is expected


@pytest.mark.anyio
@on_one_loop
async def test_without_a_gil_the_default_is_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    here = process_id(None)
    assert default_name() == "process"
    monkeypatch.setattr("asyncpar.executors.has_gil", lambda: False)
    assert default_name() == "thread"
    assert await pmap(process_id, range(3)) == [here] * 3
    assert threading.current_thread().name not in await pmap(lambda _: threading.current_thread().name, range(3))
    assert here not in await pmap(process_id, range(3), executor="process")


def test_so_it_is_for_code_that_is_not_async(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncpar.executors.has_gil", lambda: False)
    try:
        assert Parallel(n_jobs=2)(delayed(process_id)(x) for x in range(3)) == [process_id(None)] * 3
    finally:
        close_portal()
