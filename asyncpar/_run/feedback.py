"""The feedback coroutine: carries timings of finished batches to the control law, and the size back.

Slots report over a memory stream and never wait for it. One coroutine of the run receives, in a task of its own, and changes
the size. So a slot hands on what came back and sends its next batch without dealing with sizes, and all learning happens in one
place.

The stream is bounded. It is full only if as many batches came back as there were slots at the start of the run, and the
coroutine has not run meanwhile. Then the slot that reports does the coroutine's work. A run of one batch has no feedback: there
is no next size.
"""

from __future__ import annotations

from typing import NamedTuple

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from asyncpar._run.batching import BatchSizer, BatchTiming

_KEPT_STATES = 256  # of the history: enough for a plot, and few enough to take no noticeable memory


class FeedbackState(NamedTuple):
    """What the control law believed at one moment of a run.

    Attributes:
        batches: how many batches had finished.
        batch_size: calls that the next batch was to have.
        seconds_per_call: the estimate.
        overhead_seconds: of one batch: its round trip without the calls.
    """

    batches: int
    batch_size: int
    seconds_per_call: float
    overhead_seconds: float


class Feedback:
    """The batch size of a run, and how it came about."""

    def __init__(self, sizer: BatchSizer, slots: int) -> None:
        self._sizer = sizer
        self._send: MemoryObjectSendStream[BatchTiming]
        self._receive: MemoryObjectReceiveStream[BatchTiming]
        self._send, self._receive = anyio.create_memory_object_stream(slots)
        self._history: list[FeedbackState] = []
        self._stride = 1  # batches between two states that are kept
        self._batches = 0

    def report(self, timing: BatchTiming) -> None:
        """Hands over a timing; returns at once."""
        try:
            self._send.send_nowait(timing)
        except anyio.WouldBlock:  # an executor whose workers answer without ever letting the event loop turn
            self._take_what_is_there()
            self._take(timing)

    async def run(self) -> None:
        """Receives until it is cancelled."""
        with self._send, self._receive:
            while True:
                self._take(await self._receive.receive())
                self._take_what_is_there()

    @property
    def history(self) -> tuple[FeedbackState, ...]:
        """The states since the run began, evenly spaced in batches, and never more than a few hundred."""
        return tuple(self._history)

    def _take_what_is_there(self) -> None:
        try:
            while True:
                self._take(self._receive.receive_nowait())
        except anyio.WouldBlock:
            return

    def _take(self, timing: BatchTiming) -> None:
        sizer = self._sizer
        sizer.observe(timing)
        self._batches += 1
        if self._batches % self._stride == 0 and sizer.seconds_per_call is not None and sizer.overhead_seconds is not None:
            self._history.append(FeedbackState(self._batches, sizer.size, sizer.seconds_per_call, sizer.overhead_seconds))
            if len(self._history) == _KEPT_STATES:
                self._history = self._history[1::2]
                self._stride *= 2
