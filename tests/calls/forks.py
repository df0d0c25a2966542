"""Calls that fork."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path


def fork_and_die(path: Path) -> None:
    if os.fork() == 0:
        os.setsid()  # or it would be killed with the worker
        path.write_text(str(os.getpid()))
        signal.pause()
    while not path.exists() or not path.read_text():
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def note_and_fork(path: Path, x: int) -> int:
    """Both return from here."""
    with path.open("a") as file:
        file.write(f"{x}\n")
    copy = os.fork()
    if copy:
        os.waitpid(copy, 0)
    return 2 * x


async def note_and_fork_soon(path: Path, x: int) -> int:
    return note_and_fork(path, x)


def double_in_a_child(x: int) -> int:
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=lambda: answers.put(2 * x))
    child.start()
    answer: int = answers.get()
    child.join()
    return answer


def fork_twice(path: Path) -> None:
    """As daemons begin: the copy of the copy stays."""
    copy = os.fork()
    if copy == 0:
        os.setsid()
        if os.fork() == 0:
            path.write_text(str(os.getpid()))
            signal.pause()
        os._exit(0)
    os.waitpid(copy, 0)
