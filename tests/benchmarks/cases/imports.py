"""What importing asyncpar costs, as the statement alone and as a whole process that does nothing else.

`import asyncpar` loads no submodule, and `from asyncpar import pmap` loads the scheduler. Its yardstick is the parts of
anyio and asyncio that it cannot do without. Bytecode is compiled, files are in the page cache.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from statistics import median

from tests.benchmarks.frame import Case, Contender, Target, scaled
from tests.benchmarks.timing import median_seconds_of_script

_REPETITIONS = 20
_ANYIO = "import anyio"
_NEEDED = "import anyio.lowlevel, anyio.to_thread, asyncio"
_TIMED = "from time import perf_counter; began = perf_counter(); {}; print(perf_counter() - began)"


def _statement(statement: str, quick: bool) -> float:
    command = [sys.executable, "-c", _TIMED.format(statement)]
    samples = []
    for _ in range(scaled(_REPETITIONS, quick)):
        samples.append(float(subprocess.run(command, check=True, capture_output=True).stdout))
    return median(samples)


def _process(statement: str, quick: bool) -> float:
    return median_seconds_of_script(statement, scaled(_REPETITIONS, quick))


CASES = (
    Case(
        "import-statement",
        "the import statement, in a fresh process",
        (
            Contender("import asyncpar", partial(_statement, "import asyncpar"), "asyncpar", (Target(times=1.3),)),
            Contender("from asyncpar import pmap", partial(_statement, "from asyncpar import pmap"), "asyncpar"),
            Contender(_ANYIO, partial(_statement, _ANYIO), "yardstick"),
            Contender("anyio and asyncio, as needed", partial(_statement, _NEEDED), "yardstick"),
        ),
        reference=_ANYIO,
    ),
    Case(
        "import-process",
        "a process that only imports",
        (
            Contender("import asyncpar", partial(_process, "import asyncpar"), "asyncpar", (Target(times=1.3),)),
            Contender("from asyncpar import pmap", partial(_process, "from asyncpar import pmap"), "asyncpar"),
            Contender(_ANYIO, partial(_process, _ANYIO), "yardstick"),
            Contender("anyio and asyncio, as needed", partial(_process, _NEEDED), "yardstick"),
            Contender("pass", partial(_process, "pass"), "yardstick"),
        ),
        reference=_ANYIO,
    ),
)
