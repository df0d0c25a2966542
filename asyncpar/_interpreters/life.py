"""One interpreter: a thread that makes it, runs its main program in it (`_child/interpreter_main.py`), and closes it.

The thread is the only one that enters the interpreter, so everything else is said over two socket pairs: frames over one, and
requests to interrupt what runs over the other (`_child/interrupter.py`). A queue carries views of large arguments. The thread
starts with a few numbers, and its interpreter imports only what every worker needs.

Refused: `InterpreterPoolExecutor`, and `Interpreter.call` for each batch. A loop that stays in the interpreter answers in a
third of the time, can be interrupted, and keeps what it has read.

The interpreter ends when its channel has ended, as soon as nothing runs in it. Until then its thread goes on, and is known as
one that lives (`surroundings.py`).
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Callable
from typing import Any

from asyncpar._basics.locking import Numbers
from asyncpar._child.control import NOT_RECEIVED, NUMBERS, POSITION, STOP, STRIKES
from asyncpar._child.interrupter import ALL_CALLS, REQUEST
from asyncpar._interpreters.surroundings import note_birth, note_end
from asyncpar._platform.background import LoopHandle
from asyncpar._platform.own_imports import STANDARD_PATH, settled_modules
from asyncpar._processes.shortages import explained_shortage
from asyncpar._processes.zygote_start import package_roots
from asyncpar._wire.async_channel import AsyncChannel
from asyncpar._wire.views import View

_PROGRAM = """
import sys
sys.path[:0] = roots.split(chr(0))
from asyncpar._child.interpreter_main import serve
serve(channel_fd, interrupts_fd, page, queue_id, settled)
"""

_numbers = Numbers(1)
_serials = Numbers(1)  # of views


class Interpreter:
    """An interpreter, from the moment when it is wanted. Made in the event loop that `ended` is called in.

    Raises:
        ExecutorUnavailableError: the system has no resources left for its channel or its thread.

    Attributes:
        channel: to its main program. It ends with the interpreter.
        page: the control page.
        failure: why it could not be started, or has ended by itself.
        is_closing: its main program has ended. It waits for threads that calls have left, if there are any.
    """

    failure: BaseException | None = None
    is_closing = False

    def __init__(self, ended: Callable[[], object]) -> None:
        from concurrent.interpreters import create_queue

        self.number = next(_numbers)
        self.page: memoryview[float] = memoryview(bytearray(8 * NUMBERS)).cast("d")
        self.page[POSITION] = NOT_RECEIVED
        self._ended = ended
        self._is_ending = False
        self._strikes_before_end = 0.0
        self._loop = LoopHandle()
        self._queue: Any = create_queue()
        with explained_shortage("an interpreter"), contextlib.ExitStack() as undo:
            near_end, self._far_end = _socket_pair(undo)
            self._interrupts, self._far_interrupts = _socket_pair(undo)
            self._interrupts.setblocking(False)
            self.channel = AsyncChannel(near_end, None)
            undo.callback(note_end, self)
            note_birth(self)
            self._start_thread()
            undo.pop_all()

    def _start_thread(self) -> None:
        settings = {
            "roots": chr(0).join([*STANDARD_PATH, *package_roots()]),
            "channel_fd": self._far_end.fileno(),
            "interrupts_fd": self._far_interrupts.fileno(),
            "page": self.page,
            "queue_id": self._queue.id,
            "settled": " ".join(settled_modules()),
        }
        name = f"asyncpar interpreter {self.number}"
        self._thread = threading.Thread(target=self._live, args=(settings,), name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # there are too many threads, or the program is ending
            raise OSError(errno.EAGAIN, str(error)) from error

    def _live(self, settings: dict[str, Any]) -> None:
        from concurrent.interpreters import create  # pyright: ignore[reportAttributeAccessIssue]  # it looks at 3.11

        try:
            interpreter = create()
            try:
                interpreter.prepare_main(settings)
                interpreter.exec(_PROGRAM)
            finally:
                self.is_closing = True
                interpreter.close()
        except Exception as error:
            self.failure = error
        finally:
            note_end(self)
            self._far_end.close()
            self._far_interrupts.close()
            self._loop.call_soon(self._ended)

    def show(self, view: View) -> int:
        """Shows memory to the interpreter; returns the number by which a message names it."""
        serial = next(_serials)
        self._queue.put((serial, view.data))
        return serial

    def interrupt(self, number: int, position: float = ALL_CALLS) -> None:
        """Interrupts the answering of a frame, the `number`th, or only one call of it. The stop flag must be set."""
        try:
            self._interrupts.send(REQUEST.pack(number, position))
        except OSError:  # it has ended, or many requests are waiting
            return

    def end(self) -> None:
        """Ends it as soon as nothing runs in it any more, and interrupts what runs."""
        if not self._is_ending:
            self._is_ending = True
            self._strikes_before_end = self.page[STRIKES]
            self.page[STOP] = 1
            self.channel.shutdown()
            self._interrupts.close()

    def close(self) -> None:
        """Releases this side's resources. The interpreter has ended, or will end by itself."""
        self.end()
        self.channel.close()

    def let_go(self) -> None:
        """The same, where the event loop is gone."""
        self.end()
        self.channel.leave()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, seconds: float) -> None:
        """Waits for the end of its thread. Not for use in an event loop."""
        self._thread.join(max(seconds, 0))

    @property
    def lets_go(self) -> bool:
        """After `end`: whether the interpreter's other thread has had its turn since. Otherwise a C function keeps the lock."""
        return self.page[STRIKES] != self._strikes_before_end


def _socket_pair(undo: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for end in pair:
        undo.callback(end.close)
    return pair
