"""Interrupts the calls of an interpreter, from a second thread in it.

Nothing outside an interpreter can stop the code that runs in it, so it has a thread of its own that waits for requests over a
socket. The thread raises `CallInterrupted` in the thread that makes the calls (`PyThreadState_SetAsyncExc`). That ends pure
Python code, endless loops included. A call in C code is interrupted when it returns to Python, if it ever does. If all
calls are to end, they are cancelled first, because their event loop may be waiting in C code.

# Guarantees

- **A request hits only the batch that it is for.** Both sides count the frames that are answered. A request has the number of
  one of them, and is dropped if that has been answered. At the end of a batch, what has been raised and has not arrived is
  taken back.
- **A request for one call is made only while the control page shows that call.** The parent has set the stop flag before. So
  if the call ends just then, no call follows it, or the one that is hit has not done anything yet. The parent sees where it was
  hit, and runs that call again.
- **A call that catches the exception and goes on is hit again**, every 20 ms, until its batch ends.
- **An import is not hit.** A package whose import breaks off half-way may be broken for good: its modules that were done stay
  loaded, and its next import does not find them in their places. So what imports is hit when the import is done; if that takes
  too long, it is left like a call in C code.
- **The end of the socket is a request for whatever is running**, a few times. Then this thread ends, so that the interpreter
  can be closed once the call returns.

`STRIKES` on the control page counts the attempts: a thread that cannot make any waits for a C function that keeps the
interpreter's lock.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from asyncpar._child.control import POSITION, STRIKES
from asyncpar._child.protocol import CallInterrupted

REQUEST = struct.Struct("<Qd")  # the number of a frame, and the position of a call in its batch, or one of these
ALL_CALLS = -1.0
RUNNING_CALL = -2.0  # whichever it is: a coroutine call that keeps its event loop from running

_IMPORT_FILE = "<frozen importlib._bootstrap>"  # of the frames of an import
AGAIN_MS = 20
_PREPARED_MS = 50  # after the start of the interpreter, when it has probably answered its first batch
_SWITCH_SECONDS = 1e-3  # after which a thread that computes gives way to the other; Python's own choice is five times as long
_LAST_STRIKES = 10  # after the end of the socket


class Interrupter:
    """Made in the thread that makes the calls. `cancel_coroutines`: returns whether there are any to cancel."""

    def __init__(self, sock: socket.socket, page: memoryview[float], cancel_coroutines: Callable[[], bool]) -> None:
        self._sock = sock
        self._page = page
        self._cancel_coroutines = cancel_coroutines
        self._target = threading.get_ident()
        self._lock = threading.RLock()  # so that a thread can say whether it has it
        self._number = 0  # of the frame that is being answered, or was last
        self._is_busy = False
        self._has_struck = False
        self._has_ended = False  # the socket; what is broken then is of no use any more
        self._cancelled = 0  # the number of the frame whose coroutines have been cancelled
        self._set_exception: Callable[[type[BaseException] | None], object] | None = None
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._thread = threading.Thread(target=self._listen, name="asyncpar interrupter")
        self._thread.start()

    def begin(self) -> None:
        """A frame is going to be answered."""
        self._number += 1
        self._is_busy = True

    def end(self) -> None:
        """It has been answered: nothing is raised any more, not even what is on its way."""
        while True:
            try:
                with self._lock:
                    self._is_busy = False
                if self._has_struck:
                    assert self._set_exception is not None, "it has been used"
                    self._set_exception(None)
                    self._has_struck = False
                return
            except CallInterrupted:  # it was on its way, and may have hit between getting the lock and entering the block
                with suppress(RuntimeError):  # it has not
                    self._lock.release()

    def close(self) -> None:
        with suppress(OSError):  # the thread has read the end of the socket, and closed it
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        request: tuple[int, float] | None = None
        while True:
            if self._set_exception is None and not poll.poll(_PREPARED_MS):
                self._set_exception = exception_setter(self._target, CallInterrupted)
            if poll.poll(None if request is None else AGAIN_MS):
                data = self._sock.recv(REQUEST.size)
                if not data:
                    break
                request = REQUEST.unpack(data)
            if request is not None and not self._strike(*request):
                request = None
        self._has_ended = True
        for _ in range(_LAST_STRIKES):
            if not self._strike(self._number, ALL_CALLS):
                break
            time.sleep(AGAIN_MS / 1000)
        self._sock.close()

    def _strike(self, number: int, position: float) -> bool:
        """Interrupts what it is meant for; returns whether that is still running."""
        if self._set_exception is None:
            self._set_exception = exception_setter(self._target, CallInterrupted)
        set_exception, page, exception = self._set_exception, self._page, CallInterrupted
        with self._lock:
            page[STRIKES] += 1
            if not self._is_busy or number != self._number:
                return False
            if self._is_importing() and not self._has_ended:
                return True
            if position == ALL_CALLS and self._cancelled != number and self._cancel_coroutines():
                self._cancelled = number
                return True
            self._has_struck = True
            if position < 0 or page[POSITION] == position:
                set_exception(exception)
                return True
            return False

    def _is_importing(self) -> bool:
        frame = sys._current_frames().get(self._target)
        while frame is not None:
            if frame.f_code.co_filename == _IMPORT_FILE:
                return True
            frame = frame.f_back
        return False


def exception_setter(thread: int, exception: type[BaseException]) -> Callable[[type[BaseException] | None], object]:
    """Raises this exception in a thread of this interpreter; None takes back one that has not been raised yet."""
    import ctypes  # takes 5 ms, and few workers are ever interrupted

    raise_in: Any = ctypes.pythonapi.PyThreadState_SetAsyncExc
    raise_in.argtypes = [ctypes.c_ulong, ctypes.c_void_p]
    address = ctypes.c_void_p(id(exception))  # it lives as long as its module
    identity = ctypes.c_ulong(thread)
    return lambda raised: raise_in(identity, None if raised is None else address)
