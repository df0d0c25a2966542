"""An executor that starts its workers, Python processes, with a command: over ssh, in a container, as another user.

    python examples/command_executor.py                                    # two more Pythons on this machine
    python examples/command_executor.py ssh host python3 command_executor.py --serve

The command starts one worker. It must end with this file (on another machine, a copy of it) and `--serve`. asyncpar and
cloudpickle must be installed there. Batches travel as pickles through the worker's standard input and output.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Sequence

import anyio
import anyio.abc
import cloudpickle
from anyio.streams.buffered import BufferedByteReceiveStream

from asyncpar import WorkerDiedError, pmap
from asyncpar.executors import (
    Batch,
    BatchDone,
    Fate,
    Parcel,
    Place,
    PooledExecutor,
    Traits,
    batch_done,
    make_calls,
    nothing_done,
)


class CommandExecutor(PooledExecutor["CommandPlace"]):
    """Up to `workers` places. Each is a process that `command` starts when there is work for it."""

    traits = Traits(stops="kill")

    def __init__(self, command: Sequence[str], workers: int) -> None:
        super().__init__(workers)
        self._command = command
        self._started: set[CommandPlace] = set()

    async def start_place(self) -> CommandPlace:
        with anyio.CancelScope(shield=True):  # otherwise a process that is being started when its run is cancelled is lost
            process = await anyio.open_process(self._command, stderr=None)
        place = CommandPlace(process, self._started)
        self._started.add(place)
        if self.closed:  # meanwhile
            await place.end()
            self.pool.refuse_if_closed()
        return place

    async def shut_down(self) -> None:
        for place in list(self._started):
            await place.end()


class CommandPlace(Place):
    def __init__(self, process: anyio.abc.Process, started: set[CommandPlace]) -> None:
        assert process.stdin is not None, "a pipe, unless something else is asked for"
        assert process.stdout is not None, "a pipe, too"
        self._process, self._started = process, started
        self._questions, self._answers = process.stdin, BufferedByteReceiveStream(process.stdout)

    async def run(self, parcel: Parcel) -> BatchDone:
        program, batch, worker = parcel.program, parcel.batch, f"worker {self._process.pid}"
        question = cloudpickle.dumps((program, batch.columns, parcel.budget))
        self.fate = Fate.GONE  # unless it comes back
        try:
            await self._questions.send(question)
            length = int.from_bytes(await self._answers.receive_exactly(8), "big")
            report = pickle.loads(await self._answers.receive_exactly(length))
        except (anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self.end()
            return died(batch, worker)
        except BaseException:  # a cancellation: no call may be running when this returns
            await self.end()
            raise
        self.fate = Fate.FREE
        return batch_done(program, batch, report, worker)

    async def end(self) -> None:
        with anyio.CancelScope(shield=True):
            if self._process.returncode is None:
                self._process.kill()
            await self._process.aclose()
        self._started.discard(self)


def died(batch: Batch, worker: str) -> BatchDone:
    """All calls run again, each by itself, so that only the one that kills its worker fails."""
    if len(batch) > 1:
        return nothing_done(batch, [batch.part(i, i + 1, again=True) for i in range(len(batch))], worker)
    error = WorkerDiedError(f"{worker} died in {batch.describe(0)}", batch.start, batch.item(0))
    return BatchDone(batch, [None], {0: error}, [(1, 0.0)], worker)


def serve() -> None:
    """The worker's side: answers one batch after another until its input ends."""
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what calls print must not mix with answers
    while True:
        try:
            question = pickle.load(questions)
        except EOFError:
            return
        answer = cloudpickle.dumps(make_calls(*question))
        answers.write(len(answer).to_bytes(8, "big") + answer)
        answers.flush()


async def main(command: Sequence[str]) -> None:
    async with CommandExecutor(command, workers=2) as executor:
        print(await pmap(lambda x: x**2, range(10), executor=executor))
        print(await pmap(lambda x: 1 // x, [1, 0], executor=executor, on_error="return"))


if __name__ == "__main__":
    if sys.argv[-1] == "--serve" and len(sys.argv) == 2:
        serve()
    else:
        anyio.run(main, sys.argv[1:] or [sys.executable, __file__, "--serve"])
