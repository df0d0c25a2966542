"""A worker that is sent frames, as its parent sees it: what a process and an interpreter have in common.

It knows which programs its worker holds, so that each is sent once, and it turns parcels into frames and frames into answers.
How a worker starts, is stopped and ends is the affair of `worker.py` (a process) and of `_interpreters/worker.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from asyncpar._basics.validation import to_seconds
from asyncpar._child.call_forms import Initializer, refuse_as_initializer
from asyncpar._child.control import POSITION, SPAN, seconds_left
from asyncpar._child.multiprocessing_ties import current_key
from asyncpar._child.protocol import FAILED, FORGET, INTERRUPTED, SETUP, Setup
from asyncpar._contract.batches import Batch, BatchDone, nothing_done, timed_out
from asyncpar._contract.executor import Place
from asyncpar._platform.off_loop import run_off_loop
from asyncpar._processes.parcel import ProcessAnswer, ProcessParcel, SentProgram, unpack_failure
from asyncpar._processes.verdicts import LastSeen, judge
from asyncpar._wire.async_channel import AsyncChannel
from asyncpar._wire.codec import EncodedElements
from asyncpar._wire.encoder import Encoder
from asyncpar._wire.frames import Frame, weigh


def check_initializer(initializer: object, initargs: object, idle_timeout: object) -> None:
    """Refuses what cannot be the initializer of a worker, or the time that it may be idle."""
    refuse_as_initializer(initializer, initargs)
    if not to_seconds(idle_timeout) > 0:
        raise ValueError(f"idle_timeout must be a positive number of seconds, not {idle_timeout!r}")


class FrameWorker(Place):
    """A place for one batch at a time, at the other end of a channel.

    Attributes:
        name: for users.
        index: among the workers of its executor.
        page: the control page.
        grace: seconds that the worker has for stopping by itself.
        generation: of the modules that it has imported.
        idle_since: when it last became idle.
        share_of_results: how many bytes of results it may lend at once.
        shares: whether it holds shared memory, or has lent some.
    """

    index = 0
    idle_since = 0.0
    shares = False
    share_of_results = 0

    def __init__(self, name: str, channel: AsyncChannel, page: memoryview[float], grace: float, generation: int) -> None:
        self.name = name
        self.channel = channel
        self.page = page
        self.grace = grace
        self.generation = generation
        self._known: dict[int, int] = {}  # {id of a program that it holds: how many pickles of definitions it has read}
        self._to_forget: list[int] = []
        self._key: bytes | None = None  # the key of multiprocessing that the worker has
        self._known_share = 0  # the share of results that the worker knows

    @abstractmethod
    def hang_up(self) -> None:
        """Shuts down the channel: an idle worker ends, and a task that awaits a busy one is told that it ended."""

    @abstractmethod
    def lend(self, buffers: Sequence[Any]) -> Sequence[Any]:
        """The buffers of a frame as they are sent: what has room in memory that the worker sees too is lent to it."""

    async def introduce(
        self, initializer: Initializer | None, setup: Callable[[EncodedElements | None, bytes | None], Setup]
    ) -> Frame:
        """Sends `setup` of the initializer and the key of multiprocessing, and returns the answer."""
        sent = None if initializer is None else SentProgram(initializer, (0, False, None, 0, None), 0, None)
        if sent is not None and sent.encoded is None:
            await run_off_loop(sent.finish)
        self._key = current_key()
        encoded, buffers = (None, []) if sent is None else (sent.encoded, sent.buffers)
        await self.channel.send(Encoder().frame(SETUP, setup(encoded, self._key), buffers))
        return await self.channel.receive()

    def to_frame(self, parcel: ProcessParcel) -> Frame:
        """The message with a batch, its program if the worker does not know it, and what it has not been told yet."""
        sent, news = parcel.sent, None
        key = current_key()
        if self._to_forget or key != self._key or self.share_of_results != self._known_share:
            news = tuple(self._to_forget), self.share_of_results, key
            self._to_forget.clear()
            self._key = key
            self._known_share = self.share_of_results
        frame = parcel.frame(pickles_read=self._known.get(sent.program_id, 0), news=news)
        self._known[sent.program_id] = 1 + len(sent.more)
        return frame._replace(buffers=self.lend(frame.buffers)) if frame.buffers else frame

    def note_failure(self, parcel: ProcessParcel, answer: Frame) -> None:
        """If the worker has failed to take on the program, it does not hold it. If it was interrupted, that is not known."""
        if answer.kind in (FAILED, INTERRUPTED):
            self._known.pop(parcel.sent.program_id, None)
        if answer.kind == INTERRUPTED:
            self._to_forget.append(parcel.sent.program_id)
            self._key = None  # nor whether it has read the news

    def to_answer(self, parcel: ProcessParcel, sent: Frame, answer: Frame) -> ProcessAnswer:
        """The answer to a batch.

        Raises:
            Exception: the worker could not take on the program.
        """
        if answer.kind == FAILED:
            self.note_failure(parcel, answer)
            raise unpack_failure(answer)
        inline_bytes, shared_bytes = len(sent.payload) + len(answer.payload), 0
        if sent.buffers or answer.buffers:
            inline_bytes, shared_bytes = self._weigh(sent, answer)
        return ProcessAnswer(answer, parcel, self.name, inline_bytes, shared_bytes)

    def _weigh(self, sent: Frame, received: Frame) -> tuple[int, int]:
        """How many bytes have travelled in both directions, and how many were shared."""
        sent_inline, sent_shared = weigh(sent)
        received_inline, _ = weigh(received)  # its shared buffers are already mapped
        received_shared = self.channel.shared_bytes
        if sent_shared or received_shared:
            self.shares = True
        return sent_inline + received_inline - received_shared, sent_shared + received_shared

    def forget(self, program: SentProgram, *, idle: bool) -> None:
        """The worker need not keep `program` any longer. It is told with its next batch, or now if the program is large."""
        if self._known.pop(program.program_id, None) is None:
            return
        self._to_forget.append(program.program_id)
        if idle and program.is_large:
            self.channel.send_nowait(Encoder().frame(FORGET, tuple(self._to_forget)))
            self._to_forget.clear()

    async def receive_in_time(self, parcel: ProcessParcel, timeout: float) -> Frame | range:
        """The worker's answer, or the positions of calls of which one has been running for too long."""
        page = self.page
        if parcel.program.concurrency:  # the worker times its calls itself; this is for a call that blocks its event loop
            timeout += self.grace
        while True:
            position = int(page[POSITION])  # before the time: a call that began long ago is then not a later one than this
            suspects = range(position, min(position + int(page[SPAN]), len(parcel.batch)))
            left = seconds_left(page, timeout)
            if left <= 0:
                return suspects
            with anyio.move_on_after(left):
                return await self.channel.receive()

    def fail_overdue(self, parcel: ProcessParcel, suspects: range, seen: LastSeen) -> BatchDone:
        """The worker is gone, or left to one of the suspects, which has not ended in time. Other calls are to be run again."""
        batch, timeout = parcel.batch, parcel.program.timeout
        assert timeout is not None, "nothing is overdue without a timeout"
        culprit, again = judge(batch, suspects, seen)
        if culprit is None:
            return nothing_done(batch, again, self.name)
        return self.fail_one(batch, culprit, again, timed_out(batch, culprit, timeout), timeout)

    def fail_one(self, batch: Batch, culprit: int, again: tuple[Batch, ...], error: BaseException, seconds: float) -> BatchDone:
        """One call has failed, after `seconds`; those in `again` are to be run again."""
        failed, rest = batch.part(culprit, culprit + 1), tuple([part for part in again if len(part)])
        return BatchDone(failed, [None], {0: error}, ((1, seconds),), self.name, rest)
