"""Answers the frames of a parent, in a process or in an interpreter."""

from __future__ import annotations

import sys
from collections.abc import Callable

from asyncpar._child.batch_server import BatchServer, LentMemory, failure
from asyncpar._child.call_forms import Initializer
from asyncpar._child.protocol import BATCH, FORGET, READY, SETUP, CallInterrupted
from asyncpar._child.worker_state import WorkerState
from asyncpar._platform.current_worker import CurrentWorker
from asyncpar._wire.codec import EncodedElements
from asyncpar._wire.decoder import Decoder
from asyncpar._wire.frames import Frame


class FrameServer:
    """`set_up` takes on the parent's surroundings, and runs the initializer."""

    def __init__(self, server: BatchServer, memory: LentMemory, set_up: Callable[[Decoder], None]) -> None:
        self._server = server
        self._memory = memory
        self._set_up = set_up

    def answer(self, frame: Frame) -> Frame | None:
        """The frame to answer with, if any."""
        try:
            if frame.kind == SETUP:
                self._set_up(Decoder(frame))
                return Frame(READY, b"")
            if frame.kind == BATCH:
                return self._server.answer(Decoder(frame), lends=bool(frame.buffers))
            if frame.kind == FORGET:
                self._server.forget(forgotten := Decoder(frame).message)
                self._memory.rest(thoroughly=not forgotten)
                return None
            raise AssertionError(f"unknown kind of frame {frame.kind}")
        except CallInterrupted:
            raise
        except BaseException as error:  # raised by the initializer or by reading the function: the run cannot go on
            self._memory.explain({0: error}, None)
            return failure(error)


def enter_state(server: BatchServer, worker: CurrentWorker, decoder: Decoder, initializer: EncodedElements | None) -> None:
    """Runs the initializer, if there is one. The server leaves what it has made when the worker ends."""
    if initializer is not None:
        call: Initializer
        call, _ = decoder.value(initializer)
        server.state = WorkerState(call, worker, server.runner)
        server.state.enter()


def flush_output() -> None:
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except BaseException:  # noqa: S112 - a call may have put anything there, or nothing, and its result is to arrive
            continue
