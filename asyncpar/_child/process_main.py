"""The life of a process worker, from the fork to the end of its channel.

The worker takes on its parent's surroundings, runs the initializer, says READY, and then answers one BATCH after another
until the channel ends. It exits like any Python program: threads are joined, `atexit` callbacks run, output is flushed;
the zygote kills it if that takes longer than the grace it is given.

A call may fork. The copy has no part in the conversation: it lets go of the channel and of the control page before the fork
returns in it, so that the worker's death shows at once, and if the call returns in the copy too, the copy ends there. (It may
make a few calls of the batch before, if they are so short that the page is not touched between them.)
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from asyncpar._basics.notes import add_note
from asyncpar._child.control import PID, POSITION, RECEIVED, map_page, unmap_page
from asyncpar._child.lifetime import Lifetime
from asyncpar._child.multiprocessing_ties import take_on_key
from asyncpar._child.own_imports import import_own
from asyncpar._child.protocol import BATCH, DONE, FAILED, FORGET, LAST, READY, SETUP, BatchMessage, DoneMessage, News, Setup
from asyncpar._child.run_batch import BatchReport, run_batch
from asyncpar._child.shared_memory import SharedMemory
from asyncpar._memory.loans import MmapMode
from asyncpar._platform.nesting import enter_worker_process
from asyncpar._wire.channel import Channel
from asyncpar._wire.codec import Decoder, Encoder, Place, Undeliverable
from asyncpar._wire.failures import PackedError, pack_error
from asyncpar._wire.frames import Frame

_GENERATORS = (  # modules that keep a generator for the whole process, and what seeds it with chance; `random` does so itself
    ("numpy.random", "seed"),
    ("torch", "seed"),
)


def run_worker(channel_fd: int, file_fd: int, arguments_fd: int) -> NoReturn:
    """Serves batches until the parent closes the channel, and exits."""
    for descriptor in (channel_fd, file_fd, arguments_fd):
        os.set_inheritable(descriptor, False)  # or a program that a call starts would keep them open after our death
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
    worker = _Worker(control, memory)
    try:
        while True:
            answer = worker.answer(channel.receive())
            _flush_output()
            if os.getpid() != worker_pid:  # a call has forked, and this is the copy
                os._exit(0)
            if answer is not None:
                channel.send(answer)
    except EOFError:
        worker.close()
    finally:
        channel.close()
    _exit_like_a_program()


def _let_go(sock: socket.socket, control: memoryview[float], memory: SharedMemory) -> None:
    """In a forked copy of a worker: its copies of channel and files are closed; whoever touches the page gets a ValueError."""
    sock.close()
    with suppress(ValueError):  # this is a copy of a copy, and has let go already
        unmap_page(control)
        memory.leave_to_original()


class _Program(NamedTuple):
    """What a run executes here."""

    fn: Callable[..., Any]
    concurrency: int
    stop_on_error: bool
    timeout: float | None
    threshold: int
    mmap_mode: MmapMode


class _Worker:
    """Answers frames; knows the programs of the runs that are going on."""

    def __init__(self, control: memoryview[float], memory: SharedMemory) -> None:
        self._control = control
        self._memory = memory
        self._programs: dict[int, _Program] = {}  # {program id: program}
        self._coroutines: Any = None  # the module, once there was a coroutine function; it imports asyncio
        self._runner: Any = None  # asyncio.Runner, from then on
        self._lifetime = Lifetime(None, None)

    def answer(self, frame: Frame) -> Frame | None:
        """The frame to answer with, if any."""
        try:
            if frame.kind == SETUP:
                self._take_on(Decoder(frame))
                return Frame(READY, b"")
            if frame.kind == BATCH:
                return self._answer_batch(Decoder(frame), lends=bool(frame.buffers))
            if frame.kind == FORGET:
                self._forget(forgotten := Decoder(frame).message)
                self._memory.rest(thoroughly=not forgotten)
                return None
            raise AssertionError(f"unknown kind of frame {frame.kind}")
        except BaseException as error:  # of the initializer, or of reading the function: the run cannot go on
            return Encoder().frame(FAILED, tuple(pack_error(error, hidden_frames=1)))

    def _answer_batch(self, decoder: Decoder, *, lends: bool) -> Frame:
        message: BatchMessage = decoder.message
        program_id, new_program, news, budget, near_end, encoded_columns = message
        if news is not None:
            self._take_in(news)
        mmap_mode = self._programs[program_id].mmap_mode if new_program is None else new_program[1][-1]
        mapped_before = self._memory.begin_batch(decoder, mmap_mode) if lends else self._memory.let_go()
        columns, spoiled = decoder.columns(encoded_columns)
        if new_program is not None:
            function, options = new_program
            self._programs[program_id] = _Program(_only(decoder, function), *options)
        del mapped_before
        fn, concurrency, stop_on_error, timeout, threshold, _ = self._programs[program_id]
        if spoiled:
            fn = partial(_call_unless_undeliverable, fn)
        limited = self._lifetime.limited
        leave = self._lifetime.is_over if limited else None
        if concurrency:
            report = self._run_coroutines(fn, columns, budget, concurrency, stop_on_error, timeout, leave)
        else:
            singly = limited or timeout is not None
            report = run_batch(fn, columns, self._control, budget, stop_on_error, singly=singly, near_end=near_end, leave=leave)
        self._control[POSITION] = RECEIVED
        leaves = limited and self._lifetime.end_batch(len(report.values))
        if report.errors and mmap_mode == "r" and self._memory.borrows:
            _explain_read_only(report.errors)
        place = self._memory.place_from(threshold)
        return self._memory.lend(_done(report, LAST if leaves else DONE, place))

    def _take_on(self, decoder: Decoder) -> None:
        """Makes the parent's surroundings the worker's own, and runs the initializer."""
        setup: Setup = decoder.message
        directory, environment, path, argv, initializer, max_calls, max_memory, depth, key = setup
        enter_worker_process(depth)
        if key is not None:
            take_on_key(key)
        _adopt_surroundings(directory, environment, path, argv)
        if initializer is not None:
            _only(decoder, initializer)()
        self._lifetime = Lifetime(max_calls, max_memory)

    def _take_in(self, news: News) -> None:
        forget, most_shared, key = news
        self._forget(forget)
        self._memory.limit_results(most_shared)
        if key is not None:
            take_on_key(key)

    def _forget(self, program_ids: tuple[int, ...]) -> None:
        for program_id in program_ids:
            self._programs.pop(program_id, None)

    def _run_coroutines(
        self,
        fn: Callable[..., Any],
        columns: list[Any],
        budget: float,
        concurrency: int,
        stop_on_error: bool,
        timeout: float | None,
        leave: Callable[[int], bool] | None,
    ) -> BatchReport:
        if self._runner is None:
            self._coroutines = import_own("asyncpar._child.run_coroutines")
            self._runner = self._coroutines.asyncio.Runner()
        batch = self._coroutines.run_coroutines(
            fn,
            columns,
            self._control,
            budget,
            concurrency=concurrency,
            stop_on_error=stop_on_error,
            timeout=timeout,
            leave=leave,
        )
        report: BatchReport = self._runner.run(batch)
        return report

    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()


def _show_crashes() -> None:
    """A call that crashes the interpreter leaves its Python traceback on stderr."""
    try:
        faulthandler.enable()
    except (AttributeError, OSError, RuntimeError, ValueError):  # there is no stderr
        return


def _refuse_breakpoint(*arguments: Any, **keywords: Any) -> Any:
    """As `breakpoint()`: a debugger would find no terminal, and exit. One that the user has named may bring its own."""
    if os.environ.get("PYTHONBREAKPOINT"):
        return sys.__breakpointhook__(*arguments, **keywords)
    raise RuntimeError(
        'breakpoint() works in no worker process, which has no terminal; run the call with executor="inline", '
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
        if module in sys.modules:  # preloaded: without this all workers would draw the same numbers
            getattr(sys.modules[module], seed_anew, int)()  # a module of that name may be the user's own


def _explain_read_only(errors: dict[int, BaseException]) -> None:
    for error in errors.values():
        message = error.args[0] if type(error) is ValueError and error.args else None
        if type(message) is str and message.endswith(" is read-only"):  # as numpy says it of an array
            add_note(
                error,
                "large arguments are shared between workers, and read-only; "
                'mmap_mode="c" gives each call a copy that is made when it is written to',
            )


def _done(report: BatchReport, kind: int, place: Place) -> Frame:
    encoder = Encoder(None, place)
    values = encoder.column(report.values, _describe_result, report.values)
    message: DoneMessage = (
        values,
        _pack_errors(report.errors) if report.errors else {},
        report.timings,
    )
    return encoder.frame(kind, message)


def _pack_errors(errors: dict[int, BaseException]) -> dict[int, PackedError]:
    """One object that many calls have raised is packed once: its traceback has grown with each of them."""
    packed: dict[int, PackedError] = {}  # {id of an error: it, packed}
    for error in errors.values():
        if id(error) not in packed:
            packed[id(error)] = pack_error(error, hidden_frames=1)
    return {position: packed[id(error)] for position, error in errors.items()}


def _only(decoder: Decoder, encoded: Any) -> Any:
    ((value,),), _ = decoder.columns([encoded])
    if type(value) is Undeliverable:
        raise value.error
    return value


def _call_unless_undeliverable(fn: Callable[..., Any], *arguments: Any) -> Any:
    for argument in arguments:
        if type(argument) is Undeliverable:
            raise argument.error
    return fn(*arguments)


def _describe_result(values: list[Any], position: int) -> tuple[str, str]:
    return f"the result, a {type(values[position]).__qualname__},", "result"


def _exit_like_a_program() -> NoReturn:
    """As multiprocessing ends its children: what a program sees of its end, without 20 ms of tearing the interpreter down."""
    threading._shutdown()  # type: ignore[attr-defined]  # joins the threads that are not daemons
    atexit._run_exitfuncs()
    _flush_output()
    os._exit(0)


def _flush_output() -> None:
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except BaseException:  # noqa: S112 - a call may have put anything there, or nothing, and its result is to arrive
            continue
