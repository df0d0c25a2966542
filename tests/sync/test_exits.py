"""A call that exits, or raises KeyboardInterrupt, fails, but does not end a program that uses `Parallel`."""

from __future__ import annotations

from typing import Any

import pytest

from asyncpar import Parallel, delayed
from tests.calls.exits import ENDS, raise_it
from tests.functions import identity


@pytest.mark.parametrize("backend", ["process", "thread"])
@pytest.mark.parametrize("return_as", ["list", "generator"])
@pytest.mark.parametrize("error", ENDS, ids=repr)
def test_parallel_raises_the_same(error: BaseException, return_as: Any, backend: str) -> None:
    with pytest.raises(RuntimeError, match=rf"call 1, item {type(error).__name__}.*, raised {type(error).__name__}"):
        list(Parallel(n_jobs=2, backend=backend, return_as=return_as)([delayed(identity)(1), delayed(raise_it)(error)]))


def test_with_one_worker_parallel_is_a_plain_loop() -> None:
    with pytest.raises(SystemExit):
        Parallel(n_jobs=1)([delayed(raise_it)(SystemExit(1))])
