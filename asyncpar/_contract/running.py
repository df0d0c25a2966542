"""Helpers for other people's executors: they make the calls of a batch in a worker, and say what became of the batch.

    report = make_calls(program, columns, budget)       # in the worker
    done = batch_done(program, batch, report, "worker 3")   # in the program

`make_calls` does not use the executor, and a worker needs to import only this package. It makes calls in the thread that calls
it, one after another, or in an event loop of its own if the function is a coroutine function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncpar._child.control import private_page
from asyncpar._child.run_batch import BatchReport as BatchReport
from asyncpar._child.run_batch import run_batch
from asyncpar._contract.batches import Batch, BatchDone, complete_timeouts, fail_overdue
from asyncpar._contract.executor import Program


def make_calls(program: Program, columns: Sequence[Sequence[Any]], budget: float) -> BatchReport:
    """Makes the calls of a batch until all are done, `budget` seconds are over or the program says that an error ends it.

    Whatever calls raise is in the report, SystemExit and the like included.
    """
    fn, concurrency, stop_on_error, timeout = program
    if not concurrency:
        return run_batch(fn, columns, private_page(), budget, stop_on_error, singly=timeout is not None)
    import asyncio

    from asyncpar._child.run_coroutines import run_coroutines

    calls = run_coroutines(
        fn, columns, private_page(), budget, concurrency=concurrency, stop_on_error=stop_on_error, timeout=timeout
    )
    return asyncio.run(calls)


def batch_done(program: Program, batch: Batch, report: BatchReport, worker: str) -> BatchDone:
    """What became of a batch: `worker` has made the calls in `report`; all others are to be run again."""
    values, errors, timings = report
    if program.concurrency:
        complete_timeouts(batch, errors)
    elif program.timeout is not None:
        fail_overdue(batch, values, errors, timings, program.timeout)
    return BatchDone(batch, values, errors, timings, worker, batch.rest(len(values)))
