"""Decides which call is to blame when a worker is dead or a call is overdue, and which calls are to be run again. Pure.

The control page says what a dead worker was doing: the position of the call that it was running, and how many calls that may
have been (short calls are not noted one by one). A call is blamed only if no other can have been running. If there are several
suspects, each of them is run again by itself. Then the one that kills its worker is known.

Where coroutine calls of many batches interleave, all that were running are suspects, and each that runs again by itself has a
whole worker for itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from asyncpar._child.control import NOT_RECEIVED, RECEIVED
from asyncpar._contract.batches import Batch

_DEATHS_BEFORE_BLAME = 2  # a worker may die while it reads a batch for other reasons than that batch, but not twice in a row


class LastSeen(NamedTuple):
    """What a control page says: the position of the first call that may be running, or a state; and how many may be running."""

    position: int
    span: int


class Verdict(NamedTuple):
    """`culprit`: the position of the call to blame; None: none. `again`: batches of calls to run again, some perhaps empty."""

    culprit: int | None
    again: tuple[Batch, ...]


def judge_death(batch: Batch, seen: LastSeen, *, died_idle: bool, has_answered: bool) -> Verdict:
    """The worker is dead. `died_idle`: it died before the batch was sent; `has_answered`: it has ever finished a batch."""
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
    """One of the `suspects` has killed its worker, or is overdue, so that its worker must be killed."""
    before = batch.part(0, suspects.start, deaths=0, again=True)
    after = _from(batch, suspects.stop, seen)
    if len(suspects) == 1:
        return Verdict(suspects.start, (before, *after))
    singles = [batch.part(suspect, suspect + 1, deaths=0, again=True) for suspect in suspects]
    return Verdict(None, (before, *singles, *after))


def judge_interleaved(
    batch: Batch, open_positions: Sequence[int], running: Collection[int], suspects: int | None, *, may_blame: bool = True
) -> Verdict:
    """The same for one of the batches of coroutine calls that were in a worker together.

    Args:
        open_positions: calls without an outcome.
        running: those of them that were running.
        suspects: how many calls of all batches were running; None: none of them is to blame.
        may_blame: whether a call of this batch can have done it, if it was the only one.
    """
    if suspects is None:
        return Verdict(None, (batch.some(open_positions, again=True),))
    if not suspects:  # it died while it read a batch, perhaps this one
        return Verdict(None, (batch.some(open_positions, deaths=batch.deaths + 1, again=True),))
    others = batch.some([position for position in open_positions if position not in running], again=True)
    if suspects == 1 and running and may_blame:
        (culprit,) = running
        return Verdict(culprit, (others,))
    return Verdict(None, (*[batch.some([position], again=True, alone=True) for position in running], others))


def _from(batch: Batch, begin: int, seen: LastSeen) -> tuple[Batch, Batch]:
    """The calls from position `begin` on: those that the dead worker may have begun, and those that it has not. An overdue call
    may still end before the worker is killed, and other calls may follow it.
    """
    reached = len(batch) if seen.position < 0 else min(max(begin, seen.position + seen.span), len(batch))
    return batch.part(begin, reached, deaths=0, again=True), batch.part(reached, len(batch), deaths=0)
