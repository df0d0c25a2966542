"""What kills the worker that reads it."""

from __future__ import annotations

import os
from typing import Any


def leave(code: int) -> None:
    os._exit(code)


class KillsItsReader:
    def __reduce__(self) -> Any:
        return leave, (9,)
