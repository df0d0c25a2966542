"""Reading what a place has answered, when that takes too long for the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpar._contract.batches import BatchDone
from asyncpar._platform.off_loop import run_off_loop

if TYPE_CHECKING:
    from asyncpar._contract.executor import Answer


async def read_in_thread(answer: Answer) -> BatchDone:
    """What became of a batch, where `answer.is_large` says that a thread must read it."""
    done = await run_off_loop(answer.read)
    assert done is not None, "a thread has the time to read it"
    return done
