"""asyncpar's own errors.

They share one base class, `AsyncparError`, so that a caller can distinguish our failures from those of the mapped function.
A user's own exception is never wrapped: it arrives with its own type, and its cause, a `RemoteTraceback`, shows the worker's
traceback. Each message says what happened, to what, and what to do about it. Workers import this module, so it imports only
pickle, which they need anyway.
"""

import pickle


class AsyncparError(Exception):
    """The base class of asyncpar's own errors."""

    __module__ = "asyncpar"


class CacheWarning(UserWarning):
    """The cache could not read or keep something. The call has its result all the same."""

    __module__ = "asyncpar"


class ConsumedError(AsyncparError, RuntimeError):
    """A `ParallelMap` was consumed a second time. One object serves one run."""

    __module__ = "asyncpar"


class ExecutorUnavailableError(AsyncparError):
    """The executor cannot be used here, or no longer. The message says what to do."""

    __module__ = "asyncpar"


class ExecutorSaturatedError(AsyncparError):
    """As many calls as the executor allows (`max_pending`) are waiting already, and it was told to refuse more."""

    __module__ = "asyncpar"


class PicklingError(AsyncparError, pickle.PicklingError):
    """An argument, a function or a result could not be sent between processes. The message says which, and which part of it.

    Attributes:
        path: path to the part that cannot be pickled, such as ``arguments[1]['model'].lock``. The root is ``arguments``,
            ``result`` or ``function``, or ``keywords`` of a task of joblib's. Empty if it is not known.
        type_name: qualified name of that part's class, such as ``_thread.lock``.
    """

    __module__ = "asyncpar"

    def __init__(self, message: str, path: str = "", type_name: str = "") -> None:
        super().__init__(message, path, type_name)
        self.path = path
        self.type_name = type_name

    def __str__(self) -> str:
        return str(self.args[0])


class UnsafeCacheError(AsyncparError, PermissionError):
    """Others could put something into a cache that would run as code when it is read. The message says what to do."""

    __module__ = "asyncpar"


class WorkerDiedError(AsyncparError):
    """A worker process died while it was running a call.

    Attributes:
        index: position of the call's item in the input, from 0.
        item: the item; a tuple if several iterables are mapped over.
        pid: process id of the dead worker.
        exit_code: the worker's exit code, or None if a signal killed it.
        signal: number of the signal that killed it, or None if it exited by itself.
        peak_memory: the most memory that it ever held, in bytes; None if that is not known.
        likely_out_of_memory: whether the worker was killed at a time when the system killed processes for lack of memory.
    """

    __module__ = "asyncpar"

    def __init__(
        self,
        message: str,
        index: int = 0,
        item: object = None,
        pid: int | None = None,
        exit_code: int | None = None,
        signal: int | None = None,
        peak_memory: int | None = None,
        likely_out_of_memory: bool = False,
    ) -> None:
        super().__init__(message, index, item, pid, exit_code, signal, peak_memory, likely_out_of_memory)
        self.index = index
        self.item = item
        self.pid = pid
        self.exit_code = exit_code
        self.signal = signal
        self.peak_memory = peak_memory
        self.likely_out_of_memory = likely_out_of_memory

    def __str__(self) -> str:
        return str(self.args[0])


class CallTimeoutError(AsyncparError, TimeoutError):
    """A call took longer than `timeout`.

    Attributes:
        index: position of the call's item in the input, from 0.
        item: the item; a tuple if several iterables are mapped over.
        seconds: the timeout.
    """

    __module__ = "asyncpar"

    def __init__(self, message: str, index: int = 0, item: object = None, seconds: float = 0.0) -> None:
        super().__init__(message)  # alone: OSError, a base of TimeoutError, would treat further arguments as an errno
        self.index = index
        self.item = item
        self.seconds = seconds

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.args[0], self.index, self.item, self.seconds), self.__dict__.copy()


class OverdueCallError(CallTimeoutError):
    """The timeout of a coroutine call as its worker reports it, without a message: `complete_timeouts` in
    _contract/batches.py adds one.

    It has a class of its own so that no error raised by a call is mistaken for one.
    """


class RemoteError(AsyncparError):
    """Replaces an exception that a call raised but that could not be sent back.

    Attributes:
        type_name: qualified name of the original exception's class.
        message: its text.
        culprit: the part that cannot be pickled, such as ``error.args[1], a _thread.lock``; empty if that is not known.
        misread: the error that reading its pickle raises, such as ``ModuleNotFoundError: No module named 'plugin'``; empty if
            there is no pickle.
    """

    __module__ = "asyncpar"

    def __init__(self, type_name: str, message: str, culprit: str = "", misread: str = "") -> None:
        super().__init__(type_name, message, culprit, misread)
        self.type_name = type_name
        self.message = message
        self.culprit = culprit
        self.misread = misread

    def __str__(self) -> str:
        if self.misread:
            reason = f"was pickled, but reading the pickle raises {self.misread}"
        else:
            reason = "cannot be pickled" + (f" because of {self.culprit}" if self.culprit else "")
        return f"{self.type_name}: {self.message} (the original exception {reason})"


class RemoteTraceback(Exception):
    """The traceback that an exception had in its worker, as text. It is the `__cause__` of that exception."""

    __module__ = "asyncpar"

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'
