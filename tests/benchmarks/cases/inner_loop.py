"""What the worker's inner loop adds to a call, over the bare comprehension that no parallel map can beat.

Both loops run in turn over the same numbers in one process, and the difference of their medians is what is compared with the
target: the control page, the clock, the stop flag, and catching what a call may raise.
"""

from __future__ import annotations

from functools import partial
from statistics import median
from time import perf_counter

from tests.benchmarks.frame import Case, Contender, Reading, Target, scaled
from tests.benchmarks.workloads import increment

_CALLS = 10**6
_REPETITIONS = 30


def _bare(numbers: range) -> list[int]:
    return [increment(x) for x in numbers]


def _of_worker(numbers: range) -> list[int]:
    from asyncpar._child.control import private_page
    from asyncpar._child.run_batch import run_batch

    return run_batch(increment, (numbers,), private_page(), budget=float("inf")).values


def _seconds_per_call(quick: bool) -> tuple[float, float]:
    """Of the bare loop and of the worker's."""
    numbers = range(_CALLS)
    samples: dict[object, list[float]] = {_bare: [], _of_worker: []}
    for _ in range(scaled(_REPETITIONS, quick) + 1):
        for loop in (_bare, _of_worker):
            began = perf_counter()
            loop(numbers)
            samples[loop].append((perf_counter() - began) / _CALLS)
    bare, worker = (median(seconds[1:]) for seconds in samples.values())
    return bare, worker


def _added(quick: bool) -> Reading:
    bare, worker = _seconds_per_call(quick)
    return Reading(worker - bare, ideal=bare)


def _one_of(which: int, quick: bool) -> float:
    return _seconds_per_call(quick)[which]


CASES = (
    Case(
        "inner-loop",
        "seconds that a worker's loop adds to a call of x + 1, beside the bare comprehension's own",
        (
            Contender("added by asyncpar", _added, "asyncpar", (Target(plus=20e-9),)),
            Contender("worker's loop", partial(_one_of, 1), "yardstick"),
            Contender("bare comprehension", partial(_one_of, 0), "yardstick"),
        ),
        reference="bare comprehension",
    ),
)
