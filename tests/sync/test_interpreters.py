"""The sync doors lead to interpreters, too."""

from __future__ import annotations

import os

import pytest

import asyncpar
from asyncpar import Parallel, delayed
from tests.calls import interpreted
from tests.functions import double
from tests.interpreters import needs_interpreters

pytestmark = needs_interpreters


def test_every_sync_door_leads_to_interpreters() -> None:
    assert Parallel(2, backend="interpreter")(delayed(double)(x) for x in range(5)) == [0, 2, 4, 6, 8]
    assert list(asyncpar.map(double, range(5), executor="interpreter")) == [0, 2, 4, 6, 8]
    assert asyncpar.call(double, 4, executor="interpreter") == 8
    process, _ = asyncpar.call(interpreted.where, executor="interpreter")
    assert process == os.getpid()
    with asyncpar.PoolExecutor(1, executor="interpreter") as pool:
        assert pool.submit(double, 4).result() == 8


def test_interpreters_have_no_memory_to_share() -> None:
    with pytest.raises(ValueError, match="no shared memory"):
        Parallel(2, backend="interpreter", require="sharedmem")(delayed(double)(x) for x in range(2))
