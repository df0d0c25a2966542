"""What is done to the errors of calls before a user sees them, for maps and single calls alike. Plain values only."""

from __future__ import annotations

from asyncpar._basics.notes import add_note
from asyncpar._basics.wording import stand_in
from asyncpar._contract.batches import BatchDone


def annotate(done: BatchDone, run: int | None = None) -> None:
    """Adds to each error a note that names the call it came from; `run` is the number of the run."""
    attempt = f", at attempt {done.batch.attempts}" if done.batch.attempts > 1 else ""
    for position, error in done.errors.items():
        add_note(error, f"raised by {done.batch.describe(position)}, in {done.worker}{attempt}", run)


def keep_program_alive(done: BatchDone) -> None:
    """Replaces each error that would end the program if it were raised here by one that names the call.

    A call that exits, as a debugger does when it finds no terminal, must not end the program. Ctrl-C of the program itself
    is never among the errors of calls.
    """
    for position, error in done.errors.items():
        if issubclass(type(error), (SystemExit, KeyboardInterrupt, GeneratorExit)):
            done.errors[position] = stand_in(error, f"{done.batch.describe(position)},")


def raisable(error: BaseException) -> BaseException:
    """`error`, or what a coroutine may raise in its place (PEP 479): StopIteration and its like would end a loop silently."""
    if not issubclass(type(error), (StopIteration, StopAsyncIteration)):
        return error
    replacement = RuntimeError(f"a call raised {type(error).__name__}")
    replacement.__cause__ = error
    return replacement
