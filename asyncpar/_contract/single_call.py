"""One call, awaited: `await executor.run(fn, 1, key=2)`.

A single call needs no source, no window, no sink and no control law. So it does not become a run. It goes the short way:

    admit → open a session → pack → lease a place → run there → release → read → close

The steps are those of the scheduler (`_run/scheduler.py`), with the same sessions and places. So everything that these promise
also holds here: the call takes its turn with all maps that share the executor, a timeout or a cancellation ends it, and when
`make_call` has ended, in whatever way, the call is not running any more.

A call that comes back undone is sent again: its worker died before it received the call, or died while it read it, which may
happen once. The worker's parent decides that (`_processes/verdicts.py`); here it is a batch in `rest`.

A `pmap` over one item goes the same way (`_map/one_item.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

import anyio.lowlevel

from asyncpar._basics.coroutine_functions import is_coroutine_function
from asyncpar._basics.hints import not_a_function
from asyncpar._basics.validation import check_timeout
from asyncpar._basics.wording import call_in_words
from asyncpar._child.call_forms import BareCall, KeywordCall
from asyncpar._contract.answers import read
from asyncpar._contract.batches import Batch, BatchDone, check_complete
from asyncpar._contract.errors_of_calls import annotate, keep_program_alive, raisable
from asyncpar._platform.off_loop import run_off_loop

if TYPE_CHECKING:
    from asyncpar._contract.executor import Executor, Parcel, Session

_ONLY = range(1)  # the indices


class SingleCall(Batch):
    """A batch of one call that belongs to no map. Messages show it as it would be written, and not by its index and item."""

    __slots__ = ()

    def describe(self, position: int) -> str:
        row = [column[position] for column in self.columns]
        function = self.function
        if isinstance(function, BareCall):
            return f"the call {call_in_words(function.function, (), {})}"
        if isinstance(function, KeywordCall):
            positional = len(row) - len(function.names)
            keywords = dict(zip(function.names, row[positional:], strict=True))
            return f"the call {call_in_words(function.function, row[:positional], keywords)}"
        return f"the call {call_in_words(function, row, {})}"


async def make_call(
    executor: Executor, fn: Any, arguments: Sequence[Any], keywords: Mapping[str, Any], timeout: float | None
) -> Any:
    """What `fn(*arguments, **keywords)` returns, called by a worker of the executor.

    Raises:
        TypeError, ValueError: `fn` or `timeout` is refused.
        BaseException: what the call raised, or why it could not be made.
    """
    if not callable(fn):
        raise not_a_function(fn)
    if timeout is not None:
        timeout = check_timeout(timeout, of_what="call")
    concurrency = int(is_coroutine_function(fn))
    columns = tuple([(argument,) for argument in arguments])
    if keywords:
        fn = KeywordCall(fn, tuple(keywords))
        columns += tuple([(value,) for value in keywords.values()])
    elif not columns:
        fn, columns = BareCall(fn), ((None,),)
    admission = executor.admission
    if admission is not None:
        await admission.enter()
    try:
        session = executor.open_call(fn, concurrency, timeout)
        done = await run_alone(executor, session, SingleCall(_ONLY, columns, function=fn))
    finally:
        if admission is not None:
            admission.let_in()
    if done.errors:
        raise _error_of(done)
    return done.values[0]


async def run_alone(executor: Executor, session: Session, batch: Batch, places: list[Any] | None = None) -> BatchDone:
    """The outcome of a batch of one call, the only one of its session, which is closed then.

    The places that are leased for it are added to `places`. An argument that cannot be sent is an error of the call in a map,
    where `places` is given, and is raised at once otherwise.
    """
    try:
        while True:
            parcel = session.pack(batch, inf)
            if parcel.unfinished:
                await _finish(executor, parcel)
            if parcel.refusal is not None and places is None:
                raise parcel.refusal
            place = session.lease_nowait()
            if place is None:
                place = await session.lease()
            try:
                if places is not None:
                    places.append(place)
                answer = await place.run(parcel)
            finally:
                session.release(place)
            if session.is_contended:  # the next call goes to the worker first
                await anyio.lowlevel.checkpoint()
            done = await read(answer)
            if len(done.values) != 1 or not done.timings:
                check_complete(1, done, type(executor).__name__)
            if done.values:
                return done
            batch = done.rest[0]
    finally:
        session.close()


async def _finish(executor: Executor, parcel: Parcel) -> None:
    """Packs in a thread. Meanwhile the call counts as one that waits."""
    admission = executor.admission
    if admission is None:
        await run_off_loop(parcel.finish)
        return
    admission.packing += 1
    try:
        await run_off_loop(parcel.finish)
    finally:
        admission.packing -= 1
        admission.let_in()


def _error_of(done: BatchDone) -> BaseException:
    keep_program_alive(done)
    annotate(done)
    return raisable(done.errors[0])
