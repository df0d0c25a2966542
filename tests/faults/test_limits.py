"""If the system refuses resources, the error says what was refused and what to do, nothing leaks, and the pool goes on."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

import psutil
import pytest

from asyncpar import ExecutorUnavailableError, InterpreterExecutor, ProcessExecutor, ThreadExecutor, pmap
from asyncpar._child.protocol import FORGET
from asyncpar._interpreters import surroundings
from asyncpar._wire.frames import Frame
from tests.functions import double, process_id
from tests.interpreters import needs_interpreters
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

TOO_MANY_FILES = r"a worker process could not be started: Too many open files; raise the limit of open files \(ulimit -n\)"


@contextlib.contextmanager
def room_for_descriptors(count: int) -> Iterator[None]:
    """This process can open `count` more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, hard))
    source = os.open(os.devnull, os.O_RDONLY)
    taken = [source]
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(source))
        for _ in range(count):
            os.close(taken.pop())
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("count", range(5))  # a zygote takes one descriptor and a worker two, and while they start, two more
async def test_too_few_descriptors_for_a_pool(count: int) -> None:
    async with ProcessExecutor(2) as executor:
        with room_for_descriptors(count), pytest.raises(ExecutorUnavailableError, match=TOO_MANY_FILES):
            await pmap(double, range(10), executor=executor)
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


async def test_too_few_descriptors_for_another_worker() -> None:
    async with ProcessExecutor(1) as executor:
        (pid,) = await pmap(process_id, [0], executor=executor)
        before = len(os.listdir("/proc/self/fd"))
        await kill_and_wait(pid)
        with (
            room_for_descriptors(0),
            pytest.raises(ExecutorUnavailableError, match=TOO_MANY_FILES),
        ):  # but its own
            await pmap(double, [1], executor=executor)
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]
        assert len(os.listdir("/proc/self/fd")) == before


@needs_interpreters
@pytest.mark.parametrize("count", range(4))
async def test_too_few_descriptors_for_an_interpreter(count: int) -> None:
    async with InterpreterExecutor(1) as executor:
        with room_for_descriptors(count), pytest.raises(ExecutorUnavailableError, match=r"^an interpreter .*ulimit -n"):
            await pmap(double, range(10), executor=executor)
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


@needs_interpreters
async def test_no_thread_for_an_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    async with InterpreterExecutor(1) as executor:
        with monkeypatch.context() as patch, pytest.raises(ExecutorUnavailableError, match=r"^an interpreter .*ulimit -u"):
            patch.setattr(threading.Thread, "start", refuse)
            await executor.run(double, 1)
        assert not surroundings._living
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs a system that sets the limits of other processes")
@pytest.mark.parametrize("count", range(2))
async def test_too_few_descriptors_for_the_zygote(count: int) -> None:
    async with ProcessExecutor(1) as executor:
        (pid,) = await pmap(process_id, [0], executor=executor)
        (zygote,) = psutil.Process().children()
        limits = resource.prlimit(zygote.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(zygote.pid, resource.RLIMIT_NOFILE, (3, limits[1]))  # as many as it polls
        await kill_and_wait(pid)  # which the zygote sees without opening anything
        resource.prlimit(zygote.pid, resource.RLIMIT_NOFILE, (zygote.num_fds() + count, limits[1]))
        for _ in range(3):
            with pytest.raises(ExecutorUnavailableError, match=TOO_MANY_FILES):
                await pmap(double, [1], executor=executor)
        resource.prlimit(zygote.pid, resource.RLIMIT_NOFILE, limits)
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]
        assert psutil.Process().children() == [zygote]


@pytest.mark.parametrize(
    ("code", "remedy"), [(errno.EAGAIN, "raise the limit of processes"), (errno.ENOMEM, "free some memory")]
)
async def test_a_fork_that_fails_fails_its_run_only(monkeypatch: pytest.MonkeyPatch, code: int, remedy: str) -> None:
    monkeypatch.setenv("ASYNCPAR_TEST_ERRNO", str(code))
    monkeypatch.setenv("ASYNCPAR_TEST_FAILURES", "2")
    message = f"a worker process could not be started: {os.strerror(code)}; {remedy}"
    async with ProcessExecutor(1, preload=["tests.faults.fork_fails"]) as executor:
        for _ in range(2):
            with pytest.raises(ExecutorUnavailableError, match=message):
                await pmap(double, range(10), executor=executor)
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


async def test_a_zygote_that_cannot_be_started_is_tried_again_by_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    async with ProcessExecutor(1) as executor:
        with monkeypatch.context() as patch, pytest.raises(ExecutorUnavailableError, match="raise the limit of processes"):
            patch.setattr("os.posix_spawn", refuse)
            await pmap(double, range(10), executor=executor)
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


@pytest.mark.skipif(shutil.which("false") is None, reason="needs a program that fails at once")
async def test_a_zygote_that_ends_at_once_is_reported_and_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ProcessExecutor(1) as executor:
        with (
            monkeypatch.context() as patch,
            pytest.raises(ExecutorUnavailableError, match="what it wrote to stderr may say why"),
        ):
            patch.setattr(sys, "executable", shutil.which("false"))
            await pmap(double, range(10), executor=executor)
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


async def test_an_idle_worker_that_takes_no_more_messages_is_replaced() -> None:
    async with ProcessExecutor(1) as executor:
        (pid,) = await pmap(process_id, [0], executor=executor)
        os.kill(pid, signal.SIGSTOP)
        (worker,) = executor._workers
        channel = worker._process.channel
        while not channel.broken:
            channel.send_nowait(Frame(FORGET, bytes(50_000)))
        assert await pmap(process_id, [0], executor=executor) != [pid]
        assert not psutil.pid_exists(pid)


async def kill_and_wait(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    await wait_until(lambda: not psutil.pid_exists(pid))


@pytest.mark.parametrize("interpreter", ["/nowhere/python", "/dev/null"])
async def test_an_interpreter_that_cannot_be_started_is_named(monkeypatch: pytest.MonkeyPatch, interpreter: str) -> None:
    async with ProcessExecutor(1) as executor:
        with monkeypatch.context() as patch:
            patch.setattr("sys.executable", interpreter)
            with pytest.raises(ExecutorUnavailableError, match=rf"{interpreter} \(sys\.executable\) could not be started: "):
                await pmap(double, [1], executor=executor)
        assert await pmap(double, [1], executor=executor) == [2]


async def test_an_embedded_python_has_no_interpreter_for_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "")
    with pytest.raises(ExecutorUnavailableError, match=r"sys\.executable, which is empty"):
        ProcessExecutor(1)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio has threads in store
@pytest.mark.parametrize("timeout", [None, 60.0])
async def test_a_thread_that_cannot_be_started_fails_its_run_only(timeout: float | None) -> None:
    async with ThreadExecutor(2) as executor:
        size = threading.stack_size(1 << 47)  # more than there are addresses
        try:
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await pmap(double, range(10), executor=executor, timeout=timeout)
        finally:
            threading.stack_size(size)
        assert await pmap(double, range(10), executor=executor, timeout=timeout) == [2 * x for x in range(10)]
