"""`progress=`: a bar, or the user's own function, which is called each time some calls of the run have finished."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from asyncpar._run.statistics import Statistics

Progress: TypeAlias = bool | Callable[[Statistics], object] | None


class Meter(Protocol):
    """Shows how far a run is."""

    def update(self, statistics: Statistics, total: int | None) -> None:
        """`total`: how many calls there are in all, once that is known."""
        ...

    def close(self) -> None: ...


def open_meter(progress: Progress) -> Meter | None:
    """The meter of one run; None if its progress is not shown."""
    if progress is None or progress is False:
        return None
    if progress is not True:
        return _Callback(progress)
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return _Message()
    return _Bar(tqdm())


def check_progress(progress: Any) -> Progress:
    """Returns `progress` unchanged. Raises TypeError, naming the valid values."""
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise TypeError(f"progress must be True, False, None or something to call with a Statistics, not {progress!r}")
    checked: Progress = progress
    return checked


class _Callback:
    def __init__(self, callback: Callable[[Statistics], object]) -> None:
        self._callback = callback

    def update(self, statistics: Statistics, total: int | None) -> None:
        self._callback(statistics)

    def close(self) -> None:
        """Does nothing: the function is the user's."""


class _Bar:
    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def update(self, statistics: Statistics, total: int | None) -> None:
        self._bar.total = total
        self._bar.update(statistics.finished - self._bar.n)

    def close(self) -> None:
        self._bar.close()


class _Message:
    """Used without tqdm: says what to do about that, and at the end how many calls there were."""

    def __init__(self) -> None:
        self._finished = 0
        _say("a progress bar needs tqdm: pip install 'asyncpar[progress]'")

    def update(self, statistics: Statistics, total: int | None) -> None:
        self._finished = statistics.finished

    def close(self) -> None:
        _say(f"{self._finished} calls finished")


def _say(text: str) -> None:
    if sys.stderr is not None:  # as in a program without a console
        print(f"asyncpar: {text}", file=sys.stderr)
