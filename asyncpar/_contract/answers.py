"""Reading what a place has answered, when that takes too long for the event loop."""

from __future__ import annotations

from asyncpar._contract.batches import BatchDone
from asyncpar._contract.executor import Answer
from asyncpar._platform.off_loop import run_off_loop


async def read_in_thread(answer: Answer) -> BatchDone:
    """What became of a batch, where `answer.is_large` says that a thread must read it."""
    done = await run_off_loop(answer.read)
    assert done is not None, "a thread has the time to read it"
    return done
