"""A checked request, and the run that it becomes: the one builder of runs, for `pmap`, its streams and `Parallel`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from asyncpar._basics.coroutine_functions import is_coroutine_function
from asyncpar._basics.hints import not_callable
from asyncpar._contract.executor import Executor, Hints, Program, Traits
from asyncpar._map.options import RunOptions
from asyncpar._run.batching import make_sizer
from asyncpar._run.progress import Meter, open_meter
from asyncpar._run.rate_limit import RateLimit
from asyncpar._run.scheduler import OpenSession, Run, Sink
from asyncpar._run.seeded_session import opening_seeded, refuse_cached
from asyncpar._run.sources import Source, open_source
from asyncpar.executors import find_executor, in_callers_loop

DEFAULT_CONCURRENCY = 100  # as many as an HTTP client's pool has connections, by habit; a guess


def make_plan(fn: Callable[..., Any], iterables: Sequence[Any], options: RunOptions) -> Plan:
    """The checked request of a `pmap` call; see there for the errors."""
    if not callable(fn):
        raise not_callable(fn, iterables)
    if not iterables:
        raise TypeError("pmap needs at least one iterable to map over")
    if options.cache is not None:
        fn = options.cache.cache(fn)
    if options.seed is not None:
        refuse_cached([fn])
    concurrency = 0
    if is_coroutine_function(fn):
        concurrency = DEFAULT_CONCURRENCY if options.concurrency is None else options.concurrency
    elif options.concurrency is not None:
        raise ValueError(f"concurrency is for coroutine functions, and {fn!r} is not one; n_jobs limits the workers")
    elif options.rate is not None:
        raise ValueError(f"rate is for coroutine functions, and {fn!r} is not one; make the calls in a coroutine function")
    if options.burst is not None and options.rate is None:
        raise ValueError(
            "burst says how many calls may begin at once where rate says how many may in a second; there is no rate"
        )
    return Plan(fn, concurrency, open_source(iterables), options.executor, options, options.hints(), is_cached=is_twin(fn))


def is_twin(fn: Any) -> bool:
    """Whether a function looks for its results in a cache first."""
    cached = sys.modules.get("asyncpar._cache.cached")  # a program that has such a function has imported it
    return cached is not None and cached.twin_of(fn) is not None


@dataclass(slots=True)
class Plan:
    """Becomes a run in the event loop where it is consumed.

    Attributes:
        fn: the function. The batches of `Parallel` have their own functions, so there it is one that stands for them.
        concurrency: 0 for a plain function, else how many calls of a coroutine function one worker has under way.
        open_session: opens a session, where the executor's own `open` is not enough.
        batches_ahead: how many batches may be pulled and not yet handed, where the options do not limit the items.
        is_cached: there may be calls of cached functions, which are looked up before a worker is asked.
    """

    fn: Callable[..., Any]
    concurrency: int
    source: Source
    executor: Any
    options: RunOptions
    hints: Hints
    open_session: OpenSession | None = None
    batches_ahead: int | None = None
    is_cached: bool = False

    def make_run(self, sink: Sink, *, errors_are_values: bool = False, meter: Meter | None = None) -> Run:
        """A run that feeds `sink`, on the executor of the current event loop if none was given as an object."""
        options = self.options
        executor, program, in_loop = self.settle(errors_are_values=errors_are_values)
        traits = executor.traits
        source, open_session = self.source, self.open_session
        if options.seed is not None:
            open_session = opening_seeded(options.seed, open_session)
        elif self.is_cached:
            source, open_session = self._looked_up()
        return Run(
            program,
            self.hints,
            source,
            executor,
            make_sizer(
                1 if in_loop else options.batch_size,
                self.concurrency or 1,
                self.source.remaining,
                max(1, executor.workers if options.n_jobs is None else min(options.n_jobs, executor.workers)),
                traits.round_trip,
                interleaves=traits.interleaves and self.concurrency > 0,
            ),
            sink,
            open_session=open_session,
            n_jobs=options.n_jobs,
            window=options.buffersize,
            batches_ahead=self.batches_ahead,
            stop_on_error=options.on_error == "raise" and not errors_are_values,
            retrying=options.retrying(),
            rate=self._rate_limit(traits),
            meter=open_meter(options.progress) if options.progress is not None else meter,
        )

    def _rate_limit(self, traits: Traits) -> RateLimit | None:
        rate = self.options.rate
        if rate is None:
            return None
        begin_together = not (traits.interleaves or traits.in_own_task)
        return RateLimit(rate, self.options.burst, self.concurrency if begin_together else 1)

    def _looked_up(self) -> tuple[Source, OpenSession]:
        from asyncpar._run.answering import CacheSource

        source = CacheSource(self.source, self.fn)
        return source, source.opening(self.open_session)

    def settle(self, *, errors_are_values: bool = False) -> tuple[Executor, Program, bool]:
        """The executor and the program of a run, and whether it awaits its calls in the current event loop."""
        options, in_loop = self.options, self.concurrency > 0 and self.executor is None
        stop_on_error = options.on_error == "raise" and not errors_are_values and not options.retries
        executor = in_callers_loop(self.concurrency) if in_loop else find_executor(self.executor, options.n_jobs)
        return executor, Program(self.fn, self.concurrency, stop_on_error, options.timeout), in_loop
