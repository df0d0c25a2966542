"""The main program of a process worker, from the fork to the end of its channel.

The worker adopts its parent's surroundings, runs the initializer, sends READY, and then answers one BATCH after another until
the channel ends. Batches of coroutine calls are the affair of its event loop (`event_loop.py`). At the end, it leaves what the
initializer has made, and exits like any Python program: threads are joined, `atexit` callbacks run, and output is flushed. The
zygote kills it if that takes longer than the grace.

A call may fork. The copy takes no part in the conversation with the parent. It closes the channel and unmaps the control page
before the fork returns in it, so that the worker's death is seen at once. If the call returns in the copy too, the copy ends
there. (Before that, it may make a few calls of the batch, if they are so short that the page is not written between them.)
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import socket
import sys
import threading
from contextlib import suppress
from functools import partial
from types import ModuleType
from typing import Any, NoReturn

from asyncpar._child.batch_server import BatchServer
from asyncpar._child.control import PID, POSITION, RECEIVED, map_page, unmap_page
from asyncpar._child.frame_server import FrameServer, enter_state, flush_output
from asyncpar._child.lifetime import Lifetime
from asyncpar._child.multiprocessing_ties import become_child, take_on_key
from asyncpar._child.protocol import BESIDE, Setup
from asyncpar._child.shared_memory import SharedMemory
from asyncpar._platform.current_worker import CurrentWorker, enter_process
from asyncpar._platform.nesting import enter_worker_process
from asyncpar._platform.own_imports import import_own
from asyncpar._wire.channel import Channel
from asyncpar._wire.decoder import Decoder

_GENERATORS = (  # modules with a global random generator, and the function that reseeds it; `random` reseeds itself
    ("numpy.random", "seed"),
    ("torch", "seed"),
)


def run_worker(channel_fd: int, file_fd: int, arguments_fd: int) -> NoReturn:
    """Serves batches until the parent closes the channel, and exits."""
    for descriptor in (channel_fd, file_fd, arguments_fd):
        os.set_inheritable(descriptor, False)  # else a program that a call starts would keep them open after our death
    control = map_page(file_fd)
    control[PID] = os.getpid()
    received = partial(control.__setitem__, POSITION, RECEIVED)  # before it is read: a batch may be too large for that
    sock = socket.socket(fileno=channel_fd)
    channel = Channel(sock, received)
    worker_pid = os.getpid()
    memory = SharedMemory(file_fd, arguments_fd)
    os.register_at_fork(after_in_child=partial(_let_go, sock, control, memory))
    sys.modules["__main__"] = ModuleType("__main__")  # the zygote's own must not be mistaken for the user's
    _show_crashes()
    if sys.breakpointhook is sys.__breakpointhook__:  # else a preloaded debugger has set its own
        sys.breakpointhook = _refuse_breakpoint
    server = BatchServer(control, memory)
    worker = FrameServer(server, memory, partial(_take_on, server))
    event_loop = None
    try:
        with suppress(EOFError):
            while True:
                frame = channel.receive()
                while frame.kind == BESIDE:
                    if event_loop is None:
                        event_loop = import_own("asyncpar._child.event_loop").EventLoop(server, worker, channel, control)
                    frame = event_loop.serve(frame)
                answer = worker.answer(frame)
                flush_output()
                if os.getpid() != worker_pid:  # a call has forked, and this is the copy
                    os._exit(0)
                if answer is not None:
                    channel.send(answer)
        server.close()
    finally:
        channel.close()
    _exit_like_a_program()


def _let_go(sock: socket.socket, control: memoryview[float], memory: SharedMemory) -> None:
    """In a forked copy of a worker: closes its copies of channel and files. Any use of the page then raises ValueError."""
    sock.close()
    with suppress(ValueError):  # this is a copy of a copy, and has already done so
        unmap_page(control)
        memory.leave_to_original()


def _take_on(server: BatchServer, decoder: Decoder) -> None:
    """Adopts the parent's surroundings, and runs the initializer."""
    setup: Setup = decoder.message
    directory, environment, path, argv, initializer, max_calls, max_memory, depth, key, index, parent_pid, first_imports = setup
    enter_worker_process(depth)
    enter_process(worker := CurrentWorker("process", index))
    become_child(index, parent_pid)
    if key is not None:
        take_on_key(key)
    _adopt_surroundings(directory, environment, path, argv)
    for module in first_imports:
        import_own(module)
    enter_state(server, worker, decoder, initializer)
    if max_calls is not None or max_memory is not None:
        server.lifetime = Lifetime(max_calls, max_memory)


def _show_crashes() -> None:
    """Makes a call that crashes the interpreter print its Python traceback to stderr."""
    try:
        faulthandler.enable()
    except (AttributeError, OSError, RuntimeError, ValueError):  # there is no stderr
        return


def _refuse_breakpoint(*arguments: Any, **keywords: Any) -> Any:
    """Replaces `breakpoint()`: a debugger would find no terminal, and exit. One that the user has named may not need any."""
    if os.environ.get("PYTHONBREAKPOINT"):
        return sys.__breakpointhook__(*arguments, **keywords)
    raise RuntimeError(
        'breakpoint() does not work in a worker process, which has no terminal; run the call with executor="inline", '
        "or with n_jobs=1 in Parallel (or let PYTHONBREAKPOINT name a debugger that needs no terminal)"
    )


def _adopt_surroundings(directory: str | None, environment: dict[str, str], path: list[str], argv: list[str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    sys.argv[:] = argv
    if directory is not None:
        os.chdir(directory)
    for module, seed_anew in _GENERATORS:
        if module in sys.modules:  # preloaded: without this, all workers would draw the same numbers
            getattr(sys.modules[module], seed_anew, int)()  # a module of that name may be the user's own


def _exit_like_a_program() -> NoReturn:
    """Exits as multiprocessing's children do: runs what a program expects, without 20 ms of tearing the interpreter down."""
    threading._shutdown()  # type: ignore[attr-defined]  # joins the threads that are not daemons
    atexit._run_exitfuncs()
    flush_output()
    os._exit(0)
