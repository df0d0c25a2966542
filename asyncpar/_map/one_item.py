"""A map over one item that is awaited as a whole. A service makes many of these.

There is no second item, so there is nothing to cut, to order, to buffer or to learn, and no `Run` is made: the batch goes the
short way of a single call (`_contract/single_call.py`), in two thirds of the time. All else is as in a run: the session, the
notes on errors, the error policy and the statistics. Retries, progress, a cache and a seed need a run, and so do iterables that
are not sequences, because only a pull shows that there is no second item.
"""

from __future__ import annotations

import time
from typing import Any

from asyncpar._contract.batches import Batch, BatchDone
from asyncpar._contract.errors_of_calls import annotate, keep_program_alive, raisable
from asyncpar._contract.executor import Executor, Fate
from asyncpar._contract.single_call import run_alone
from asyncpar._map.plan import Plan
from asyncpar._run.outcomes import explain_tuples, values_by_policy
from asyncpar._run.scheduler import next_run_number
from asyncpar._run.sources import SlicedSource
from asyncpar._run.statistics import Statistics
from asyncpar._run.window import BATCHES


def is_one_item(plan: Plan) -> bool:
    """Whether the plan, awaited as a whole, may go the short way."""
    options = plan.options
    is_one = type(plan.source) is SlicedSource and plan.source.remaining == 1
    return is_one and not options.retries and not options.progress and not plan.is_cached and options.seed is None


class OneItem:
    """The run of such a plan: `collect` it once, and ask for `statistics` at any time."""

    _done: BatchDone | None = None
    _pulled = 0
    _executor: Executor | None = None

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._places: list[Any] = []  # that were leased for it
        self._began = time.monotonic()

    async def collect(self) -> list[Any]:
        """The list of results. Raises what the call raises, if the plan says so."""
        plan = self._plan
        self._executor, program, _ = plan.settle()
        admission = self._executor.admission
        if admission is not None:
            await admission.enter()
        try:
            session = self._executor.open(program, plan.hints)
            batch = Batch(range(1), plan.source.take(1))
            self._pulled = 1
            self._done = done = await run_alone(self._executor, session, batch, self._places)
        finally:
            if admission is not None:
                admission.let_in()
        if done.errors:
            keep_program_alive(done)
            annotate(done, next_run_number())
            explain_tuples(done)
            if plan.options.on_error == "raise":
                raise raisable(done.errors[0])
        return values_by_policy(done, plan.options.on_error)

    def statistics(self) -> Statistics:
        """As those of a run of one batch."""
        options, done, executor = self._plan.options, self._done, self._executor
        finished = 0 if done is None else 1
        size = 1 if options.batch_size == "auto" else options.batch_size
        workers = 0 if executor is None else min(options.n_jobs or executor.workers, executor.workers)
        return Statistics(
            pulled=self._pulled,
            finished=finished,
            failed=0 if done is None else len(done.errors),
            handed=finished,
            window=options.buffersize or BATCHES * max(workers, 1) * size,
            batches=finished,
            batch_size=size,
            workers=workers,
            busy_seconds=0.0 if done is None else done.busy_seconds,
            elapsed_seconds=time.monotonic() - self._began,
            abandoned=sum([place.fate in (Fate.LEFT, Fate.DETAINED) for place in self._places]),
            inline_bytes=0 if done is None else done.inline_bytes,
            shared_bytes=0 if done is None else done.shared_bytes,
        )
