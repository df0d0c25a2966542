"""Calls that start programs."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.waiting import wait_until


class Programs:
    """Started by calls, they write their process ids into a directory, whole lines."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, x: object = 0, *, wrapper: tuple[str, ...] = (), **options: Any) -> None:
        """Waits for a program that takes long."""
        command = [*wrapper, "/bin/sh", "-c", f"echo $$ > {self.directory}/$$ && exec sleep 50"]
        subprocess.run(command, check=False, **options)

    def run_beside_group(self, x: object = 0) -> None:
        """`timeout` leads a process group of its own, as does a job of an interactive shell."""
        self.run(wrapper=("timeout", "50"))

    def start(self, x: object = 0) -> None:
        """Does not wait for it."""
        subprocess.Popen(["/bin/sh", "-c", f"echo $$ > {self.directory}/$$ && exec sleep 50"])
        while not self.all():
            pass

    def fork(self, x: object = 0) -> None:
        if os.fork() == 0:
            self.run()
        self.run()

    def run_in_multiprocessing(self, x: object = 0) -> None:
        child = multiprocessing.get_context("fork").Process(target=self.run)
        child.start()
        child.join()

    def all(self) -> list[int]:
        return [int(path.name) for path in self.directory.iterdir() if path.read_text()]

    async def have_begun(self, count: int = 1) -> None:
        """Returns when this many have been started."""
        await wait_until(lambda: len(self.all()) == count)

    async def have_gone(self) -> None:
        """Returns when those that have been started are no more."""
        assert self.all()
        await wait_until(lambda: not any(map(goes_on, self.all())))


def goes_on(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start_and_die(programs: Programs, die: Callable[[object], None]) -> None:
    programs.start()
    die(0)


def exit_with_three(_: object) -> None:
    os._exit(3)
