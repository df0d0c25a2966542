"""Reading what a place has answered: at once, or in a thread when that takes too long for the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpar._contract.batches import BatchDone
from asyncpar._platform.off_loop import run_off_loop

if TYPE_CHECKING:
    from asyncpar._contract.executor import Answer


async def read(answer: Answer) -> BatchDone:
    """What became of a batch."""
    done = None if answer.is_large else answer.read()
    if done is None:
        done = await run_off_loop(answer.read)
        assert done is not None, "a thread has the time to read it"
    return done
