"""A session of any executor for calls that have random streams: workers are sent the indices of their calls.

On the way out, a batch gets a last column, its indices, which a `SeededCall` needs (`_child/seeded_calls.py`). It keeps the
column for as long as it is under way, also when it comes back undone or is to be tried again. Messages do not show it.

Cached functions are refused, because a result that is found in the cache depends on no seed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from asyncpar._basics.forms import users_function
from asyncpar._basics.wording import short_repr
from asyncpar._child.call_forms import make_call
from asyncpar._child.seeded_calls import SeededCall, SeededCoroutineCall
from asyncpar._contract.batches import Batch
from asyncpar._contract.executor import Executor, Hints, Parcel, Program, Session
from asyncpar._run.scheduler import OpenSession
from asyncpar._run.session_around import Forms, LongerBatch, SessionAround


class SeededBatch(LongerBatch):
    """A batch with one more column, the indices of its calls."""

    __slots__ = ()
    added = 1


class SeededSession(SessionAround):
    """Args:
    inner: the executor's session. Its program, or the functions of its batches, are `SeededCall`s.
    """

    def __init__(self, inner: Session, seed: int) -> None:
        super().__init__(inner)
        self._forms = Forms(lambda function: SeededCall(function, seed))

    def pack(self, batch: Batch, budget: float) -> Parcel:
        return self.inner.pack(batch if isinstance(batch, SeededBatch) else self._with_indices(batch), budget)

    def _with_indices(self, batch: Batch) -> SeededBatch:
        function = batch.function
        if function is not None:
            refuse_cached(batch.columns[0] if function is make_call else [function])
            function = self._forms.of(function)
        return batch.turned_into(SeededBatch, (*batch.columns, batch.indices), function)


def opening_seeded(seed: int, open_inner: OpenSession | None) -> OpenSession:
    """How the session of a run with this seed is opened. `open_inner`: for batches with functions of their own."""

    def open_session(executor: Executor, program: Program, hints: Hints) -> Session:
        if open_inner is not None:
            return SeededSession(open_inner(executor, program, hints), seed)
        form = SeededCoroutineCall if program.concurrency else SeededCall
        return SeededSession(executor.open(program._replace(fn=form(program.fn, seed)), hints), seed)

    return open_session


def refuse_cached(functions: Iterable[Callable[..., Any]]) -> None:
    """Raises ValueError if one of them looks for its results in a cache."""
    cached = sys.modules.get("asyncpar._cache.cached")  # a program that has such a function has imported it
    if cached is None:
        return
    for function in functions:
        function = users_function(function)
        while isinstance(function, partial):
            function = function.func
        if cached.twin_of(function) is not None:
            raise ValueError(
                f"a cached function cannot have a seed: what is found in the cache would not depend on it, and "
                f"{short_repr(function)} looks there first; map the function without the cache, or give each call the numbers "
                "that its result depends on as arguments"
            )
