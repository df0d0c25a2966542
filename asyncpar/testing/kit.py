"""What all tests of the kit share: the event loops, the executor under test, and messages for what is wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any, NoReturn

import anyio
import pytest

from asyncpar._contract.executor import Executor
from asyncpar._map.pmap import pmap
from asyncpar.testing.functions import double

EVENT_LOOPS = [pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio")]
if find_spec("uvloop"):
    EVENT_LOOPS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))
if find_spec("trio"):
    EVENT_LOOPS.append(pytest.param(("trio", {}), id="trio"))


class Kit:
    """A subclass must define `make_executor`; see `ExecutorContract` for the rest."""

    pytestmark = pytest.mark.anyio
    patience = 60.0
    holds_event_loop = False

    @pytest.fixture(params=EVENT_LOOPS)
    def anyio_backend(self, request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
        backend: tuple[str, dict[str, Any]] = request.param
        return backend

    def make_executor(self) -> Executor:
        """A new executor with two workers, or as many as it can have."""
        raise NotImplementedError("a subclass of ExecutorContract says here which executor it tests")

    def change_places(self, executor: Any, places: int) -> None:
        """Changes the number of places. Not every executor can."""
        pytest.skip("this executor's places do not change: change_places() is not overridden")

    @asynccontextmanager
    async def executor(self) -> AsyncIterator[Executor]:
        """A new executor, open until the test ends. The test may take no longer than `patience`."""
        with anyio.move_on_after(self.patience) as scope:
            async with self.make_executor() as executor:
                yield executor
        if scope.cancelled_caught:
            wrong(
                f"not over after {self.patience:g} s: a run, a cancellation or the end of the executor waits forever, perhaps "
                f"for a place that was not given back, or for calls that have no outcome and are not in BatchDone.rest"
            )

    async def check_usable(self, executor: Executor, after_what: str) -> None:
        """Checks that all of the executor's places work."""
        results = await pmap(double, range(20), executor=executor, batch_size=1)
        compare(results, [2 * x for x in range(20)], f"a run after {after_what}")


def wrong(message: str) -> NoReturn:
    __tracebackhide__ = True
    pytest.fail(message)


def compare(got: Sequence[Any], expected: Sequence[Any], what: str) -> None:
    """Fails with the first difference, not with two long lists."""
    __tracebackhide__ = True
    for position, (one, other) in enumerate(zip(got, expected, strict=False)):
        if one != other:
            hint = ""
            if one in expected:
                hint = f"; that is the result at {expected.index(one)}: results are shifted, or come in another order"
            wrong(f"{what}: the result at {position} is {one!r}, not {other!r}{hint}")
    if len(got) != len(expected):
        lost = "results are lost" if len(got) < len(expected) else "calls are answered more than once"
        wrong(f"{what}: there are {len(got)} results, not {len(expected)}: {lost}")


async def wait_until(condition: Callable[[], object], what: str) -> None:
    """Looks repeatedly, because other processes and threads cannot set an event here."""
    try:
        with anyio.fail_after(30):
            while not condition():
                await anyio.sleep(0.001)
    except TimeoutError:
        wrong(f"this has not happened in 30 s: {what}")
