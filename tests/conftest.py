"""What every test shares: the three event loops, the executors, and the check that nothing is left behind."""

from __future__ import annotations

import compileall
import gc
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asyncpar
from tests.loops import EVENT_LOOPS

pytest_plugins = ["asyncpar.testing"]
pytest.register_assert_rewrite("tests.clusters")  # which has tests, and is imported by others

settings.register_profile("asyncpar", deadline=None)  # a busy machine is no defect
settings.load_profile("asyncpar")

NO_WORKER_IMPORTS = re.compile(r"/(test_\w+\.py$|conftest\.py$|benchmarks/)")
EXECUTORS = ("process", "thread", "inline")


def pytest_configure(config: pytest.Config) -> None:
    """Thousands of processes import the package, and the modules with what calls do, from where they stand. That takes half as
    long once these are compiled, which the processes may have been told not to do (PYTHONDONTWRITEBYTECODE).
    """
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(str(Path(asyncpar.__file__).parent), quiet=1)
        compileall.compile_dir(str(Path(__file__).parent), quiet=1, rx=NO_WORKER_IMPORTS)


@pytest.fixture(params=EVENT_LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Each async test runs on asyncio, on asyncio over uvloop, and on trio, unless it is marked `on_one_loop`."""
    backend: tuple[str, dict[str, Any]] = request.param
    if backend[1].get("use_uvloop"):
        pytest.importorskip("uvloop", reason="uvloop has no build for this interpreter")
    return backend


@pytest.fixture(params=EXECUTORS)
async def executor(request: pytest.FixtureRequest, anyio_backend: object) -> AsyncIterator[asyncpar.Executor]:
    """An executor of each kind, with two workers where it has workers."""
    async with make_executor(request.param) as executor:
        yield executor


def make_executor(name: str) -> asyncpar.Executor:
    if name == "process":
        return asyncpar.ProcessExecutor(2)
    return asyncpar.ThreadExecutor(2) if name == "thread" else asyncpar.InlineExecutor()


@pytest.fixture(scope="session", autouse=True)
def hypothesis_has_begun() -> Iterator[None]:
    check_nothing()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nobody_looks_through_what_stays(hypothesis_has_begun: None) -> None:
    """What is imported stays, and so does what pytest keeps of each test that has ended. After some thousand tests, there is so
    much of it that `gc.collect` after each would take a third of the tests' time. What belongs to the test is made after this.
    """
    gc.collect()
    gc.freeze()


@given(st.none())
def check_nothing(_: None) -> None:
    """At its first property, hypothesis makes a random generator and searches its referrers, which must not be frozen."""


@pytest.fixture(scope="session", autouse=True)
def uvloop_has_run_once() -> None:
    """libuv makes one pipe for the whole process at its first use, and keeps it."""
    try:
        import uvloop
    except ImportError:
        return
    uvloop.run(anyio.lowlevel.checkpoint())


@pytest.fixture(autouse=True)
def every_test_leaves_nothing_behind(nothing_is_left_behind: None) -> Iterator[None]:
    """No test of ours need say so. The synchronous face keeps a thread and warm workers for the whole program; here they end
    with the test.
    """
    yield
    portal = sys.modules.get("asyncpar._sync.portal")
    if portal is not None:
        portal.close_portal()
