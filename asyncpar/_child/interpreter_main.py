"""The main program of an interpreter that is a worker, in a thread of the program, from its boot to the end of its channel.

It takes on the program's import path, runs the initializer, sends READY, and answers one BATCH after another, like a process
worker. But its process is the program's. So it leaves working directory, environment and signals alone, and does not end its
process. A second thread can interrupt it (`interrupter.py`).

A batch that an interruption has hit outside its calls has no answer; INTERRUPTED is sent instead.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from functools import partial
from types import ModuleType

from asyncpar._child.batch_server import BatchServer
from asyncpar._child.control import POSITION, RECEIVED, STOP
from asyncpar._child.frame_server import FrameServer, enter_state, flush_output
from asyncpar._child.interrupter import Interrupter
from asyncpar._child.left_threads import end_left_threads
from asyncpar._child.multiprocessing_ties import take_on_key, watch_imports
from asyncpar._child.protocol import FORGET, INTERRUPTED, SETUP, CallInterrupted, Setup
from asyncpar._child.shown_memory import ShownMemory
from asyncpar._platform.current_worker import CurrentWorker, enter_process
from asyncpar._platform.nesting import enter_worker_process
from asyncpar._platform.own_imports import import_own, take_on_path
from asyncpar._wire.channel import Channel
from asyncpar._wire.decoder import Decoder
from asyncpar._wire.frames import Frame

_LEAVING_SECONDS = 0.2  # that leaving the state may take; as long as a call has for stopping


def serve(channel_fd: int, interrupts_fd: int, page: memoryview[float], queue_id: int, settled: str) -> None:
    """Serves batches until the parent closes the channel. The descriptors stay the parent's; here are copies of them."""
    sys.modules["__main__"] = ModuleType("__main__")  # ours must not be mistaken for the user's
    received = partial(page.__setitem__, POSITION, RECEIVED)
    channel = Channel(socket.socket(fileno=os.dup(channel_fd)), received)
    memory = ShownMemory(queue_id)
    server = BatchServer(page, memory)
    interrupter = Interrupter(socket.socket(fileno=os.dup(interrupts_fd)), page, server.cancel_coroutines)
    worker = FrameServer(server, memory, partial(_take_on, server, settled.split()))
    try:
        with suppress(EOFError):
            while True:
                frame = channel.receive()
                answer = _answer(worker, frame, interrupter, page)
                flush_output()
                if answer is not None:
                    channel.send(answer)
        _leave(server)
    finally:
        interrupter.close()
        channel.close()
        end_left_threads()


def _leave(server: BatchServer) -> None:
    """Leaves the state of the worker, in time, and closes its event loop."""
    state = server.state
    if state is not None and state.has_to_be_left:
        import_own("asyncpar._child.cut_off").call_in_time(state.unwind, _LEAVING_SECONDS, state.cancel)
    server.close()


def _answer(worker: FrameServer, frame: Frame, interrupter: Interrupter, page: memoryview[float]) -> Frame | None:
    if frame.kind == FORGET:
        return worker.answer(frame)
    try:
        interrupter.begin()
        if frame.kind == SETUP and page[STOP]:  # it is not wanted any more, and the request to interrupt it was too early
            raise CallInterrupted
        answer = worker.answer(frame)
        interrupter.end()
        return answer
    except CallInterrupted:
        interrupter.end()
        page[POSITION] = RECEIVED
        return Frame(INTERRUPTED, b"")


def _take_on(server: BatchServer, settled: list[str], decoder: Decoder) -> None:
    """Adopts what of the parent's surroundings an interpreter has for itself, and runs the initializer."""
    setup: Setup = decoder.message
    _, _, path, argv, initializer, _, _, depth, key, index, _, first_imports = setup
    enter_worker_process(depth)
    enter_process(worker := CurrentWorker("interpreter", index))
    watch_imports()
    if key is not None:
        take_on_key(key)
    take_on_path(path, settled)
    sys.argv[:] = argv
    for module in first_imports:
        import_own(module)
    enter_state(server, worker, decoder, initializer)
