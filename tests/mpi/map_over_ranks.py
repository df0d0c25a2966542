"""Maps over the ranks of an MPI program: `mpiexec -n 3 python -m mpi4py.futures tests/mpi/map_over_ranks.py`."""

from __future__ import annotations

import asyncio
import os
import sys

import numpy as np
from mpi4py.futures import MPIPoolExecutor

import asyncpar


def double(x: int) -> tuple[int, int]:
    if x % 5 == 0:
        raise ValueError(x)
    return 2 * x, os.getpid()


async def double_soon(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


async def main() -> None:
    with MPIPoolExecutor() as pool:
        async with asyncpar.FuturesExecutor(pool, workers=2) as executor:
            results = await asyncpar.pmap(double, range(2000), executor=executor, on_error="return")
            for x, result in enumerate(results):
                if x % 5:
                    assert isinstance(result, tuple)
                    assert result[0] == 2 * x
                else:
                    assert isinstance(result, ValueError)
                    assert result.args == (x,)
            ranks = {result[1] for result in results if isinstance(result, tuple)}
            assert len(ranks) == 2
            assert await asyncpar.pmap(double_soon, range(10), executor=executor) == [2 * x for x in range(10)]
            arrays = [np.full(200_000, float(x)) for x in range(4)]
            assert await asyncpar.pmap(np.sum, arrays, executor=executor) == [200_000.0 * x for x in range(4)]
    sys.stdout.write("mapped over two ranks\n")


if __name__ == "__main__":
    asyncio.run(main())
