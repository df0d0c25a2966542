"""The interpreter executor passes the kit, and does what no other executor does.

Functions that cross to an interpreter are in modules that import neither pytest nor numpy.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest

from asyncpar import Executor, InterpreterExecutor
from asyncpar.testing import ExecutorContract

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="there are no interpreters")


class TestInterpreterExecutor(ExecutorContract):
    def make_executor(self) -> Executor:
        return InterpreterExecutor(2)

    def change_places(self, executor: Any, places: int) -> None:
        executor.pool.resize(places)
