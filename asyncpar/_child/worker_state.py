"""The state of a worker: what its initializer makes, from the start of the worker to its end.

What the initializer returns decides what is done with it:

    a context manager             is entered, and left when the worker ends
    a generator                   is run as far as its `yield`, and from there on when the worker ends
    a coroutine                   is awaited, and its value is treated in the same way
    the asynchronous kinds        the same, in the worker's event loop
    anything else                 is the state

So it does not matter whether the initializer is itself a generator function, for example, or a partial of one. What can be
entered in both ways is entered asynchronously, since such classes have `__enter__` only to refuse it. What can be awaited as
well as entered (a connection pool) is entered, because only then is it closed.

# Guarantees

- **What has been entered is left once**, by the same thread, and if it is asynchronous, by the same task and in the same event
  loop. Cancel scopes and task groups need the latter. So one task enters it, waits, and leaves it. (A worker that is killed
  leaves nothing, and a forked copy of a worker ends without leaving.)
- **An error while it is left does not get lost.** Nobody awaits the end of a worker, so its traceback is printed to stderr.
- **If the event loop has to be given up**, because an interruption has hit it, the state that lives in it is left in it, and
  made anew before the next call.

This module does not import asyncio. An initializer that is not asynchronous does not need an event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from asyncpar._basics.notes import add_note
from asyncpar._basics.wording import name_of, stand_in
from asyncpar._child.call_forms import Initializer
from asyncpar._child.protocol import CallInterrupted
from asyncpar._child.unawaited import is_unawaited
from asyncpar._platform.current_worker import CurrentWorker
from asyncpar._platform.own_imports import import_own


class WorkerState:
    """What `initializer` makes for `worker`. All methods are called in the worker's thread, unless they say otherwise.

    Args:
        runner: gives the `asyncio.Runner` of the worker; it is called only if something is asynchronous.
    """

    def __init__(self, initializer: Initializer, worker: CurrentWorker, runner: Callable[[], Any]) -> None:
        self._initializer = initializer
        self._worker = worker
        self._runner = runner
        self._is_made = False
        self._stack: ExitStack | None = None  # with what was entered
        self._in_loop: _InLoop | None = None
        self._failure: BaseException | None = None  # of leaving
        worker.keep_state()

    @property
    def has_to_be_left(self) -> bool:
        """Whether anything has been entered."""
        return self._in_loop is not None or self._stack is not None

    def enter(self) -> None:
        """Makes the state, unless it is there.

        Raises:
            Exception: what the initializer raises, with a note that names it, or a RuntimeError in the place of what would end
                the program, or its event loop.
            CallInterrupted: it was interrupted.
        """
        if self._is_made:
            return
        try:
            self._worker.keep_state(self._enter())
        except BaseException as error:
            self._in_loop = None
            if not _may_be_raised_in_program(error):
                raise stand_in(error, f"the {self._described()}") from error
            add_note(error, f"raised by the {self._described()}")
            raise
        self._is_made = True

    def _enter(self) -> Any:
        made = _as_manager(self._initializer())
        if not _is_asynchronous(made):
            return self._enter_manager(made) if _is_manager(made) else made
        try:
            runner = self._runner()
        except BaseException:  # it was interrupted while it imported asyncio
            if is_unawaited(made):
                made.close()
            raise
        self._in_loop = in_loop = _InLoop(made, runner.get_loop())
        return runner.run(in_loop.enter())

    def _enter_manager(self, manager: Any) -> Any:
        with ExitStack() as stack:
            value = stack.enter_context(manager)
            self._stack = stack.pop_all()
        return value

    def leave(self) -> None:
        """Leaves what was entered. If that fails, the error is printed."""
        self.unwind()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            add_note(failure, f"raised while the state was left that the {self._described()} has made")
            import_own("traceback").print_exception(failure)

    def unwind(self) -> None:
        """The first part of leaving, which may be interrupted: runs the user's code, and keeps its error."""
        self._is_made = False
        try:
            if self._in_loop is not None:
                self._in_loop.is_leaving = True
                self._runner().run(self._in_loop.leave())
            elif self._stack is not None:
                self._stack.close()
        except BaseException as error:
            self._failure = error
        finally:
            self._in_loop = self._stack = None
            self._worker.keep_state()

    def leave_loop(self) -> None:
        """The event loop is going to be closed. A state that does not live in it stays."""
        if self._in_loop is not None:
            self.leave()

    def cancel(self) -> bool:
        """Cancels what is asynchronous in entering or leaving it; returns whether there is anything. Any thread may call it."""
        in_loop = self._in_loop
        if in_loop is None or self._is_made:
            return False
        return in_loop.cancel()

    def _described(self) -> str:
        worker = self._worker
        return f"initializer {name_of(self._initializer.function)} of the {worker.executor} worker with index {worker.index}"


class _InLoop:
    """A state that is made asynchronously, and the task in which it is entered and left.

    A call may cancel all the tasks that it finds. This one goes on, until `is_leaving` is set.
    """

    def __init__(self, made: Any, loop: Any) -> None:
        self._made = made
        self._loop = loop
        self._entered = loop.create_future()
        self._wake = loop.create_future()
        self._task: Any = None
        self.is_leaving = False

    async def enter(self) -> Any:
        self._task = self._loop.create_task(self._live())
        return await self._entered

    async def leave(self) -> None:
        if not self._wake.done():
            self._wake.set_result(None)
        await self._task

    def cancel(self) -> bool:
        if self._task is None:
            return False
        self._loop.call_soon_threadsafe(self._task.cancel)  # after its first step, for which the loop was asked before
        return True

    async def _live(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                self._entered.set_result(await _enter_in_loop(self._made, stack))
                await self._wait_until_leaving()
        except BaseException as error:
            if self._entered.done():
                raise
            self._entered.set_exception(error)

    async def _wait_until_leaving(self) -> None:
        from asyncio import CancelledError  # it has been imported by now

        while not self.is_leaving:
            try:
                await self._wake
            except CancelledError:
                self._wake = self._loop.create_future()


async def _enter_in_loop(made: Any, stack: AsyncExitStack) -> Any:
    while _is_asynchronous(made):
        if _is_async_manager(made):
            return await stack.enter_async_context(made)
        made = _as_manager(await made)
    return stack.enter_context(made) if _is_manager(made) else made


def _as_manager(made: Any) -> Any:
    """A generator as the context manager that `contextlib` makes of its function."""
    if type(made) is GeneratorType:
        return contextmanager(lambda: made)()
    if type(made) is AsyncGeneratorType:
        return asynccontextmanager(lambda: made)()
    return made


def _is_asynchronous(made: Any) -> bool:
    return _is_async_manager(made) or (hasattr(type(made), "__await__") and not _is_manager(made))


def _is_async_manager(made: Any) -> bool:
    return hasattr(type(made), "__aenter__") and hasattr(type(made), "__aexit__")


def _is_manager(made: Any) -> bool:
    return hasattr(type(made), "__enter__") and hasattr(type(made), "__exit__")


def _may_be_raised_in_program(error: BaseException) -> bool:
    """Whether it neither ends the program, nor is taken for the end of an iteration there. An interruption is never sent."""
    kind = type(error)
    if issubclass(kind, StopIteration | StopAsyncIteration):
        return False
    return issubclass(kind, (Exception, CallInterrupted))
