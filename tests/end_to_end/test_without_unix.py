"""On a system without forks, shared memory files and sockets that pass descriptors, everything works except processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import tests.end_to_end.without_unix
import asyncio, functools, sys
from asyncpar import ExecutorUnavailableError, InlineExecutor, Parallel, ProcessExecutor, ThreadExecutor, delayed, pmap

def double(x):
    return 2 * x

async def double_soon(x):
    await asyncio.sleep(0)
    return 2 * x

async def stream(function, **options):
    return [x async for x in pmap(function, range(100), **options)]

async def thread_executor():
    async with ThreadExecutor(2) as executor:
        return await pmap(double, range(100), executor=executor)

async def inline_executor():
    async with InlineExecutor() as executor:
        return await pmap(double, range(100), executor=executor)

async def refused(function, **options):
    try:
        await pmap(function, range(100), **options)
    except ExecutorUnavailableError as error:
        return str(error)

async def main():
    if sys.argv[1] == "asyncio":
        assert await stream(double_soon) == expected
    assert await stream(double, executor="thread", timeout=100, retries=1, progress=lambda _: None) == expected
    assert await stream(double, executor="inline") == expected
    assert await pmap(double, range(100), executor="thread", n_jobs=3) == expected
    assert await thread_executor() == expected
    assert await inline_executor() == expected
    assert [outcome.value async for outcome in pmap(double, range(100), executor="thread").outcomes()] == expected
    assert await refused(double) == await refused(double, executor="process") == refusal

expected = [2 * x for x in range(100)]
try:
    ProcessExecutor()
except ExecutorUnavailableError as error:
    refusal = str(error)
print(refusal)
if sys.argv[1] == "trio":
    import trio
    trio.run(main)
else:
    asyncio.run(main())
for options in ({"backend": "threading"}, {"prefer": "threads"}, {"backend": "sequential"}, {"require": "sharedmem"}):
    assert Parallel(n_jobs=2, **options)(delayed(double)(x) for x in range(100)) == expected
assert list(Parallel(n_jobs=2, backend="threading", return_as="generator")(delayed(double)(x) for x in range(100))) == expected
assert Parallel()(delayed(double)(x) for x in range(100)) == expected
try:
    Parallel(n_jobs=2)(delayed(double)(x) for x in range(100))
except ExecutorUnavailableError as error:
    print(error)
"""


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_threads_coroutines_and_inline_calls_work_where_there_are_no_process_workers(loop: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, loop],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    refusals = done.stdout.splitlines()
    assert len(refusals) == 2
    for refusal in refusals:
        assert "need Unix domain sockets that pass descriptors, which win32 does not have" in refusal
        assert 'use executor="thread"' in refusal
