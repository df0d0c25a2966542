"""How soon things go on after somebody was killed, cancelled or interrupted.

A worker that was killed: until its replacement has given the next result. The standard library's and loky's pools are broken
by a death, so that theirs is the time until the error is seen, and until a new pool has given a result.

A cancelled run: until it has ended, none of its calls running any more. Workers in a call that never looks up are killed after
the grace, which is a fifth of a second; between short calls they look up by themselves. No peer stops what is running.

Ctrl-C in a script whose workers are busy: until the script has exited by its KeyboardInterrupt.
"""

from __future__ import annotations

import itertools
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import anyio

from tests.benchmarks.frame import Case, Contender, Target, scaled
from tests.benchmarks.peers import WORKERS
from tests.benchmarks.timing import run_in

_REPETITIONS = 30
_SLOW_REPETITIONS = 10
_GRACE = 0.2  # of a ProcessExecutor, unless it is told otherwise
_SHORT_CALL = 100e-6  # seconds


def _replace_asyncpar(quick: bool) -> float:
    from asyncpar import ProcessExecutor, pmap

    async def main() -> float:
        async with ProcessExecutor(1) as executor:

            async def replace() -> float:
                (pid,) = await pmap(_process_id, [0], executor=executor)
                began = perf_counter()
                os.kill(pid, signal.SIGKILL)
                assert await pmap(math.sqrt, [4], executor=executor) == [2.0]
                return perf_counter() - began

            return median([await replace() for _ in range(1 + scaled(_REPETITIONS, quick))][1:])

    return run_in("asyncio", main)


def _replace_pool(make_pool: Callable[[], Any], quick: bool) -> float:
    def replace() -> float:
        pool = make_pool()
        pid = pool.submit(_process_id, 0).result()
        began = perf_counter()
        os.kill(pid, signal.SIGKILL)
        with suppress(Exception):  # the pool is broken, which may show in this call or only in a later one
            while True:
                pool.submit(math.sqrt, 4).result()
        pool.shutdown()
        with make_pool() as fresh:
            assert fresh.submit(math.sqrt, 4).result() == 2.0
            return perf_counter() - began

    return median([replace() for _ in range(1 + scaled(_SLOW_REPETITIONS, quick))][1:])


def _process_pool() -> Any:
    from concurrent.futures import ProcessPoolExecutor

    return ProcessPoolExecutor(1)


def _loky() -> Any:
    from loky import ProcessPoolExecutor  # type: ignore[import-untyped]  # it has no type information

    return ProcessPoolExecutor(1)


def _cancel(call: Callable[[Path, int], object], quick: bool) -> float:
    """From the cancellation of a run, all of whose workers are busy, to its end."""
    from asyncpar import ProcessExecutor, pmap

    async def main() -> float:
        async with ProcessExecutor(WORKERS) as executor:
            return median([await cancel(executor) for _ in range(1 + scaled(_SLOW_REPETITIONS, quick))][1:])

    async def cancel(executor: ProcessExecutor) -> float:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            async with anyio.create_task_group() as group:
                group.start_soon(run, executor, directory)
                while len(os.listdir(directory)) < WORKERS:
                    await anyio.sleep(0.001)
                began = perf_counter()
                group.cancel_scope.cancel()
            return perf_counter() - began

    async def run(executor: ProcessExecutor, directory: Path) -> None:
        await pmap(partial(call, directory), itertools.count(), executor=executor)

    return run_in("asyncio", main)


_SCRIPT = """
import asyncio, signal, sys
from functools import partial
from pathlib import Path
from asyncpar import ProcessExecutor, pmap
from tests.benchmarks.cases.recovery import WORKERS, spin_for_ever
async def main():
    async with ProcessExecutor(WORKERS) as executor:
        await pmap(partial(spin_for_ever, Path(sys.argv[1])), range(WORKERS), executor=executor, batch_size=1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored where the benchmarks run in the background
asyncio.run(main())
"""


def _interrupt(quick: bool) -> float:
    return median([_interrupt_once() for _ in range(scaled(_SLOW_REPETITIONS, quick))])


def _interrupt_once() -> float:
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-c", _SCRIPT, name]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, process_group=0) as script:
            while len(os.listdir(name)) < WORKERS:
                assert script.poll() is None, "the script has ended before its workers were busy"
                time.sleep(0.001)
            began = perf_counter()
            os.killpg(script.pid, signal.SIGINT)  # as a terminal does
            _, errors = script.communicate()
            taken = perf_counter() - began
    assert errors.rstrip().endswith("KeyboardInterrupt")
    return taken


def spin_for_ever(directory: Path, _: int) -> None:
    """A call that never looks up."""
    _show(directory)
    while True:
        pass


def spin_shortly(directory: Path, _: int) -> None:
    """One of many short calls."""
    _show(directory)
    until = perf_counter() + _SHORT_CALL
    while perf_counter() < until:
        pass


def _show(directory: Path) -> None:
    """One file for each worker that has begun."""
    (directory / str(os.getpid())).touch()


def _process_id(_: object) -> int:
    return os.getpid()


CASES = (
    Case(
        "replaced-worker",
        "from the death of a worker to the next result",
        (
            Contender("asyncpar", _replace_asyncpar, "asyncpar", (Target(plus=10e-3),)),
            Contender("ProcessPoolExecutor, a new pool", partial(_replace_pool, _process_pool)),
            Contender("loky, a new pool", partial(_replace_pool, _loky)),
        ),
    ),
    Case(
        "cancel-busy",
        "cancelling a run whose calls never end",
        (Contender("asyncpar", partial(_cancel, spin_for_ever), "asyncpar", (Target(plus=_GRACE + 50e-3),)),),
    ),
    Case(
        "cancel-short",
        "cancelling a run of calls of 0.1 ms",
        (Contender("asyncpar", partial(_cancel, spin_shortly), "asyncpar", (Target(plus=5e-3),)),),
    ),
    Case(
        "ctrl-c",
        "Ctrl-C of a script with busy workers, until it has exited",
        (Contender("asyncpar", _interrupt, "asyncpar", (Target(plus=0.5),)),),
    ),
)
