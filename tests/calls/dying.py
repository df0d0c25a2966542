"""Calls that end their worker, each in its own way."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path
from typing import NoReturn


def crash_at_five(x: int) -> int:
    if x == 5:
        ctypes.string_at(0)
    return x


def fill_and_die(size: int) -> NoReturn:
    content = os.urandom(size)
    os._exit(3 if content else 4)


def start_a_sleeper(path: Path) -> None:
    sleeper = subprocess.Popen(["sleep", "600"], start_new_session=True)
    path.write_text(str(sleeper.pid))
    os._exit(3)
