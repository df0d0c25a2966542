"""A whole script, from the start of the interpreter to its end, that maps a hundred items over two processes.

What a command-line tool pays for going parallel at all. `pass` is the interpreter alone.
"""

from __future__ import annotations

from functools import partial

from tests.benchmarks.frame import Case, Contender, scaled
from tests.benchmarks.timing import median_seconds_of_script

_REPETITIONS = 10

_ASYNCPAR = """
import asyncio, math
from asyncpar import ProcessExecutor, pmap
async def main():
    async with ProcessExecutor(2) as executor:
        return await pmap(math.sqrt, range(100), executor=executor)
assert len(asyncio.run(main())) == 100
"""

_JOBLIB = """
import math
from joblib import Parallel, delayed
assert len(Parallel(n_jobs=2)(delayed(math.sqrt)(x) for x in range(100))) == 100
"""

_PROCESS_POOL = """
import math
from concurrent.futures import ProcessPoolExecutor
with ProcessPoolExecutor(2) as pool:
    assert len(list(pool.map(math.sqrt, range(100)))) == 100
"""

_POOL = """
import math, multiprocessing
with multiprocessing.get_context({method!r}).Pool(2) as pool:
    assert len(pool.map(math.sqrt, range(100))) == 100
"""

_LOKY = """
import math
from loky import ProcessPoolExecutor
with ProcessPoolExecutor(2) as pool:
    assert len(list(pool.map(math.sqrt, range(100)))) == 100
"""

_MPIRE = """
import math
from mpire import WorkerPool
with WorkerPool(2) as pool:
    assert len(pool.map(math.sqrt, range(100))) == 100
"""


def _script(source: str, quick: bool) -> float:
    return median_seconds_of_script(source, scaled(_REPETITIONS, quick))


CASES = (
    Case(
        "cold-start",
        "a script that maps 100 items over 2 processes, from start to end",
        (
            Contender("asyncpar", partial(_script, _ASYNCPAR), "asyncpar"),
            Contender("joblib", partial(_script, _JOBLIB)),
            Contender("ProcessPoolExecutor", partial(_script, _PROCESS_POOL)),
            Contender("multiprocessing.Pool, forkserver", partial(_script, _POOL.format(method="forkserver"))),
            Contender("multiprocessing.Pool, fork", partial(_script, _POOL.format(method="fork"))),
            Contender("loky", partial(_script, _LOKY)),
            Contender("mpire", partial(_script, _MPIRE)),
            Contender("pass", partial(_script, "pass"), "yardstick"),
        ),
        reference="pass",
    ),
)
