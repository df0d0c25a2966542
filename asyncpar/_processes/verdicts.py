"""Which call is to blame when a worker is dead or a call is overdue, and which calls are to be run again. Pure.

What a dead worker was doing stands on its control page: the position of the call that it was running, and how many calls that
may have been (short ones are not noted one by one). A call is blamed only if it alone can have been running. Several suspects
are run again, each by itself: then the one that kills shows itself.
"""

from __future__ import annotations

from typing import NamedTuple

from asyncpar._child.control import NOT_RECEIVED, RECEIVED
from asyncpar._contract.batches import Batch

_DEATHS_BEFORE_BLAME = 2  # a worker may die while it reads a batch by no fault of that batch; not twice in a row


class LastSeen(NamedTuple):
    """What a control page says: the position of the first call that may be running, or a state, and how many may be."""

    position: int
    span: int


class Verdict(NamedTuple):
    """`culprit`: the position of the call to blame; None: nobody. `again`: the calls that are to be run again, some perhaps
    empty."""

    culprit: int | None
    again: tuple[Batch, ...]


def judge_death(batch: Batch, seen: LastSeen, *, died_idle: bool, has_answered: bool) -> Verdict:
    """The worker is dead. `died_idle`: it was so before the batch was sent; `has_answered`: it has ever finished a batch."""
    if died_idle or (seen.position == NOT_RECEIVED and has_answered):  # it died between two batches
        return Verdict(None, (batch,))
    if seen.position < 0:
        if batch.deaths + 1 < _DEATHS_BEFORE_BLAME:
            begun = seen.position == RECEIVED
            return Verdict(None, (batch.part(0, len(batch), deaths=batch.deaths + 1, again=begun),))
        suspects = range(len(batch))
    else:
        suspects = range(seen.position, min(seen.position + seen.span, len(batch)))
    return judge(batch, suspects, seen)


def judge(batch: Batch, suspects: range, seen: LastSeen) -> Verdict:
    """One of the `suspects` has killed its worker, or must be killed with it."""
    before = batch.part(0, suspects.start, deaths=0, again=True)
    after = _from(batch, suspects.stop, seen)
    if len(suspects) == 1:
        return Verdict(suspects.start, (before, *after))
    singles = [batch.part(suspect, suspect + 1, deaths=0, again=True) for suspect in suspects]
    return Verdict(None, (before, *singles, *after))


def _from(batch: Batch, begin: int, seen: LastSeen) -> tuple[Batch, Batch]:
    """The calls from position `begin` on: those that the dead worker may have begun, and those that it has not. A call that is
    overdue may end after all before the worker is killed, and others follow it.
    """
    reached = len(batch) if seen.position < 0 else min(max(begin, seen.position + seen.span), len(batch))
    return batch.part(begin, reached, deaths=0, again=True), batch.part(reached, len(batch), deaths=0)
