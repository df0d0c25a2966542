"""One process worker as its parent sees it: it is set up, runs batches (`parcel.py`), is stopped, and its death is handled.

The slot that leased the worker writes the batch to the worker's socket and awaits the socket. The other end is
`_child/process_main.py`.

Cancelling has three steps. The stop flag on the control page keeps the worker from starting another call. If its answer comes
within `grace` seconds, it stays in the pool. Otherwise it is killed, and the kill is awaited. Killing is acceptable because a
fresh worker costs only about a millisecond.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import anyio

from asyncpar._child.call_forms import Initializer
from asyncpar._child.control import NOT_RECEIVED, POSITION, STOP
from asyncpar._child.protocol import FAILED, FORGET, LAST, Setup
from asyncpar._contract.batches import Batch, BatchDone, nothing_done
from asyncpar._contract.executor import Answer, Fate
from asyncpar._memory.buffers import Buffer, Shared
from asyncpar._platform.background import wait_through
from asyncpar._platform.first_imports import first_imports
from asyncpar._platform.nesting import depth
from asyncpar._processes.frame_worker import FrameWorker
from asyncpar._processes.parcel import ProcessParcel, unpack_failure
from asyncpar._processes.shortages import A_PROCESS, describe_failed_start
from asyncpar._processes.verdicts import LastSeen, judge_death
from asyncpar._processes.zygote_client import ForkedProcess, Zygote
from asyncpar._processes.zygote_start import describe_lost_start, search_path
from asyncpar._wire.codec import EncodedElements
from asyncpar._wire.encoder import Encoder
from asyncpar.errors import ExecutorUnavailableError, WorkerDiedError

_THREAD_VARIABLES = (  # each is read by a numerical library when it is loaded
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "POLARS_MAX_THREADS",
)


class ProcessWorker(FrameWorker):
    """One forked process, which is a place for one batch at a time."""

    def __init__(self, process: ForkedProcess, zygote: Zygote, grace: float, generation: int, share_of_results: int) -> None:
        super().__init__(f"process worker {process.worker_id}", process.channel, process.page, grace, generation)
        self._process = process
        self._zygote = zygote
        self.share_of_results = share_of_results  # bytes
        self.max_calls: int | None = None  # that it makes in all; None: any number
        self._has_answered = False

    @property
    def was_killed(self) -> bool:
        """Whether it was ended by a SIGKILL that was not ours, for example for lack of memory."""
        return self._process.was_killed

    @property
    def last_seen(self) -> LastSeen:
        """What its control page said at its end."""
        return self._process.last_seen

    @property
    def last_running(self) -> list[tuple[int, int]] | None:
        """The coroutine calls that were running at its end; see `running_calls`."""
        return self._process.last_running

    def note_answer(self) -> None:
        """It has answered."""
        self._has_answered = True
        self._process.loans.collect()

    async def set_up(self, initializer: Initializer | None, limits: Limits) -> None:
        """Sends the worker its surroundings and waits until it is ready.

        Raises:
            ExecutorUnavailableError: it died before that. An error of the initializer is raised unchanged.
        """
        self.max_calls = limits.max_calls
        try:
            answer = await self.introduce(initializer, partial(limits.setup, self.index))
        except EOFError:
            await self.see_end()
            if self._process.start_error is not None:
                raise ExecutorUnavailableError(describe_failed_start(A_PROCESS, self._process.start_error)) from None
            if not self._zygote.has_served:
                raise ExecutorUnavailableError(describe_lost_start()) from None
            raise ExecutorUnavailableError(
                f"a new worker process {self._process.describe_end()} before it was ready; what it wrote to stderr may "
                "say why (a failing preload= module or initializer=, or too little memory)"
            ) from None
        except BaseException:
            await self.kill()
            raise
        if answer.kind == FAILED:
            await self.kill()
            raise unpack_failure(answer)

    async def run(self, parcel: ProcessParcel) -> Answer:
        process, timeout = self._process, parcel.program.timeout
        if process.channel.broken:  # by a message that it did not take completely when it was idle
            await self.kill()
            return nothing_done(parcel.batch, (parcel.batch,), self.name)
        if self.idle_since and not self._has_answered and process.channel.has_ended():  # its page would not tell
            return await self._bury(parcel.batch, died_idle=True)
        process.page[POSITION] = NOT_RECEIVED
        try:
            frame = self.to_frame(parcel)
            if rest := process.channel.send_at_once(frame):
                await process.channel.send_rest(rest)
            answer = await (process.channel.receive() if timeout is None else self.receive_in_time(parcel, timeout))
        except EOFError:
            return await self._bury(parcel.batch)
        except BaseException:
            await self._stop(parcel)
            raise
        if type(answer) is range:
            return await self._end_overdue(parcel, answer)
        done = self.to_answer(parcel, frame, answer)
        self.note_answer()
        if answer.kind == LAST:
            await self.retire()
        return done

    def lend(self, buffers: Sequence[Any]) -> Sequence[Buffer | Shared]:
        return self._process.loans.lend_all(buffers)

    def rest(self) -> None:
        """There may be nothing to do for a while, so the worker gives back its shared memory."""
        if self.shares:
            self._process.channel.send_nowait(Encoder().frame(FORGET, ()))

    def collect_loans(self) -> None:
        """Forgets the loans of arguments that the worker has ended."""
        self._process.loans.collect()

    async def retire(self) -> None:
        """Lets an idle worker exit like any Python program. Kills it if that takes longer than the grace."""
        self.hang_up()
        try:
            with anyio.move_on_after(self.grace, shield=True):
                await self._zygote.wait_ended(self._process)
        finally:
            await self.kill()

    def hang_up(self) -> None:
        """Shuts down the channel: an idle worker exits, and a task that awaits a busy one is told that it died."""
        self.fate = Fate.GONE
        self._process.channel.shutdown()

    def let_go(self) -> None:
        """Releases this side's resources for the worker, where nothing can be awaited."""
        self.fate = Fate.GONE
        self._process.let_go()

    async def kill(self) -> None:
        """Ends the worker whatever it is doing, and returns when it is gone."""
        self.fate = Fate.GONE
        self._zygote.kill(self._process)  # first: even if this task is cancelled a second time, the worker ends
        await self._see_end()

    async def _stop(self, parcel: ProcessParcel) -> None:
        """Ends the batch that was sent: asks the worker to stop, and kills it after the grace."""
        process = self._process
        self.fate = Fate.GONE  # until it has answered: even if this task is cancelled a second time meanwhile
        try:
            if not process.channel.broken:
                process.page[STOP] = 1
                with anyio.move_on_after(self.grace, shield=True):
                    answer = await process.channel.receive()
                    self.note_failure(parcel, answer)
                    process.page[STOP] = 0
                    self.fate = Fate.GONE if answer.kind == LAST else Fate.FREE
                    return
        except EOFError:  # it has died meanwhile
            pass
        finally:
            if self.fate is not Fate.FREE:
                await self.kill()

    async def _end_overdue(self, parcel: ProcessParcel, suspects: range) -> BatchDone:
        """A call does not end in time. Its worker is killed, and the other calls are to be run again."""
        await self.kill()
        return self.fail_overdue(parcel, suspects, self._process.last_seen)

    async def _bury(self, batch: Batch, *, died_idle: bool = False) -> BatchDone:
        """The worker died. The call that was running is blamed, and the others are to be run again."""
        hung_up = self.fate is not Fate.FREE
        await self.see_end()
        if hung_up:
            raise ExecutorUnavailableError("the executor was closed while this run was using it")
        seen, has_answered = self._process.last_seen, self._has_answered
        culprit, again = judge_death(batch, seen, died_idle=died_idle, has_answered=has_answered)
        if culprit is None:
            return nothing_done(batch, again, self.name)
        return self.fail_one(batch, culprit, again, self.death_of(batch, culprit), 0.0)

    def death_of(self, batch: Batch, position: int) -> WorkerDiedError:
        """The error of the call that has killed the worker."""
        process = self._process
        peak_memory = process.peak_memory
        out_of_memory = process.was_killed and self._zygote.memory_watch.ran_out()
        who = f"the worker process {process.pid or process.worker_id}"
        message = f"{who} {process.describe_end()} while it ran {batch.describe(position)}"
        if peak_memory is not None:
            message += f"; its peak memory was {peak_memory / 2**20:.0f} MiB"
        if out_of_memory:
            message += ", and it likely ran out of memory: the system has just killed processes for lack of memory"
        return WorkerDiedError(
            message,
            batch.indices[position],
            batch.item(position),
            process.pid,
            process.exit_code,
            process.signal,
            peak_memory,
            out_of_memory,
        )

    async def see_end(self) -> None:
        """The channel has ended, so the worker has ended or will end soon. If it lives on without the channel, it is killed."""
        try:
            with anyio.move_on_after(self.grace):
                await self._zygote.wait_ended(self._process)
        finally:
            await self.kill()

    async def _see_end(self) -> None:
        self.fate = Fate.GONE
        try:
            await wait_through(lambda: self._zygote.wait_ended(self._process))
        finally:
            self._process.close()


class Limits(NamedTuple):
    """The limits of one worker: how many calls it may make, how many bytes it may hold, and how many threads a numerical
    library may start in it; None: any number.
    """

    max_calls: int | None
    max_memory: int | None
    inner_threads: int | None = None

    def environment(self) -> dict[str, str]:
        """This program's environment, with limits on those threads unless it already has some."""
        threads = {} if self.inner_threads is None else dict.fromkeys(_THREAD_VARIABLES, str(self.inner_threads))
        return threads | os.environ.copy()

    def setup(self, index: int, initializer: EncodedElements | None, key: bytes | None) -> Setup:
        """The first message to the worker with this index and these limits."""
        try:
            directory: str | None = os.getcwd()
        except FileNotFoundError:  # it has been removed
            directory = None
        argv: list[str] = list(getattr(sys, "argv", ()))  # some embedded Pythons have no argv
        environment, path = self.environment(), search_path()
        limits, pid, first = (self.max_calls, self.max_memory), os.getpid(), first_imports()
        return directory, environment, path, argv, initializer, *limits, depth() + 1, key, index, pid, first
