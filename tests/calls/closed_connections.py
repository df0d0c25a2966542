"""Calls that cut their worker off."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import NoReturn

LONG = "40"  # seconds: far more than a grace, and less than a test may take


def become_a_sleeper(_: object) -> NoReturn:
    os.execv(shutil.which("sleep") or "sleep", ["sleep", LONG])


def close_everything(_: object) -> None:
    os.closerange(3, 1000)
    time.sleep(float(LONG))


def note_and_close_everything(notes: Path) -> None:
    with notes.open("a") as file:
        file.write("x")
    close_everything(None)


def hold_up_the_report_and_exit(_: object) -> NoReturn:
    os.kill(os.getppid(), signal.SIGSTOP)
    os._exit(7)


def hold_up_the_report_and_die(_: object) -> None:
    os.kill(os.getppid(), signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGKILL)
