"""`Parallel`, the synchronous face, beside joblib's own: what one call costs, what a task costs, and a whole script.

Both are called in the same words. Under `with`, both keep two workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from tests.benchmarks.frame import Case, Contender, Reading, Target, scaled
from tests.benchmarks.timing import median_seconds, median_seconds_of_script
from tests.benchmarks.workloads import increment, spin

_CALLS = 2000
_JOBLIBS_CALLS = 100  # which takes a hundred times as long
_TASKS = 10**6
_FEWER_TASKS = 20_000
_MILLISECONDS = 2000
_WORKERS = 2

_SCRIPT = """
import math
from {library} import Parallel, delayed
assert len(Parallel(n_jobs=2)(delayed(math.sqrt)(x) for x in range(100))) == 100
"""

Face: TypeAlias = Callable[[], tuple[Any, Any]]  # imports and returns Parallel and delayed


def _asyncpar() -> tuple[Any, Any]:
    from asyncpar import Parallel, delayed

    return Parallel, delayed


def _joblib() -> tuple[Any, Any]:
    from joblib import Parallel, delayed  # type: ignore[import-untyped]  # it has no type information

    return Parallel, delayed


def _one_call(face: Face, repetitions: int, quick: bool) -> float:
    parallel_class, delayed = face()
    with parallel_class(n_jobs=_WORKERS) as parallel:
        parallel([delayed(math.sqrt)(4)] * 4)
        return median_seconds(lambda: parallel([delayed(math.sqrt)(4)]), scaled(repetitions, quick))


def _tiny_tasks(face: Face, quick: bool) -> float:
    parallel_class, delayed = face()
    count = scaled(_TASKS, quick)
    with parallel_class(n_jobs=_WORKERS) as parallel:
        return median_seconds(lambda: parallel(delayed(increment)(i) for i in range(count)), 3) / count


def _pre_dispatched(pre_dispatch: int | str, face: Face, quick: bool) -> float:
    parallel_class, delayed = face()
    count = scaled(_FEWER_TASKS, quick)
    with parallel_class(n_jobs=_WORKERS, pre_dispatch=pre_dispatch) as parallel:
        return median_seconds(lambda: parallel(delayed(increment)(i) for i in range(count)), 9) / count


def _pre_dispatch_case(name: str, pre_dispatch: int | str) -> Case:
    return Case(
        f"parallel-pre-dispatch-{name}",
        f"Parallel(pre_dispatch={pre_dispatch!r}): 20 000 times delayed(x + 1), per task",
        (
            Contender("asyncpar", partial(_pre_dispatched, pre_dispatch, _asyncpar), "asyncpar", (Target(times=1.0),)),
            Contender("joblib", partial(_pre_dispatched, pre_dispatch, _joblib)),
        ),
        reference="joblib",
    )


def _busy_tasks(face: Face, quick: bool) -> Reading:
    """The ideal is what the tasks took, spread over the workers."""
    parallel_class, delayed = face()
    count = scaled(_MILLISECONDS, quick)
    spent: list[float] = []
    with parallel_class(n_jobs=_WORKERS) as parallel:

        def run() -> None:
            spent[:] = parallel(delayed(spin)(1) for _ in range(count))

        seconds = median_seconds(run, 1)
    return Reading(seconds, sum(spent) / _WORKERS)


def _script(library: str, quick: bool) -> float:
    return median_seconds_of_script(_SCRIPT.format(library=library), scaled(10, quick))


CASES = (
    Case(
        "parallel-one-call",
        "Parallel under `with`: one call of one task",
        (
            Contender("asyncpar", partial(_one_call, _asyncpar, _CALLS), "asyncpar", (Target(plus=200e-6),)),
            Contender("joblib", partial(_one_call, _joblib, _JOBLIBS_CALLS)),
        ),
        reference="joblib",
    ),
    Case(
        "parallel-tiny-tasks",
        "Parallel: 10⁶ times delayed(x + 1), per task",
        (
            Contender("asyncpar", partial(_tiny_tasks, _asyncpar), "asyncpar", (Target(plus=900e-9),)),
            Contender("joblib", partial(_tiny_tasks, _joblib)),
        ),
        reference="joblib",
    ),
    _pre_dispatch_case("8", 8),
    _pre_dispatch_case("3n", "3 * n_jobs"),
    Case(
        "parallel-busy-tasks",
        "Parallel: 2 000 tasks of 1 ms",
        (
            Contender("asyncpar", partial(_busy_tasks, _asyncpar), "asyncpar", (Target(times=1.03),)),
            Contender("joblib", partial(_busy_tasks, _joblib)),
        ),
        reference="ideal",
    ),
    Case(
        "parallel-cold-start",
        "a script that makes 100 calls in Parallel, from start to end",
        (
            Contender("asyncpar", partial(_script, "asyncpar"), "asyncpar", (Target(times=0.5, of="joblib"),)),
            Contender("joblib", partial(_script, "joblib")),
        ),
        reference="joblib",
    ),
)
