"""What `Parallel(verbose=…)` prints, in joblib's words, and how often. Pure: no clock, no printing."""

from __future__ import annotations

from math import log10, sqrt

ALL_WORKERS = 1 << 16  # of a cluster: it is not known how many there are, or will be
EVERY_TIME = 10  # above this verbosity each completion is reported
TO_STDOUT = 50  # from this verbosity on it is printed on stdout


def preamble(name: str, n_jobs: int) -> str:
    workers = "all of its workers" if n_jobs == ALL_WORKERS else f"{n_jobs} concurrent workers"
    return f"Using backend {name} with {workers}."


def progress_line(done: int, total: int | None, seconds: float, *, finished: bool = False) -> str:
    """How far a call is; `total`: how many tasks it has, once that is known."""
    width = 3 if not total else int(log10(total)) + 1
    elapsed = f"| elapsed: {short_time(seconds)}"
    if finished:
        return f"Done {done:{max(3, width)}d} out of {done:{max(3, width)}d} {elapsed} finished"
    if total is None:
        return f"Done {done:3d} tasks      {elapsed}"
    remaining = seconds / max(done, 1) * (total - done)
    return f"Done {done:{max(3, width)}d} out of {total:{max(3, width)}d} {elapsed} remaining: {short_time(remaining)}"


def is_due(report: int, done: int, total: int | None, verbose: float, *, finished: bool = False) -> bool:
    """Whether completion number `report` (from 1) is reported: each above `EVERY_TIME`, fewer and fewer below it."""
    if verbose <= 0:
        return False
    if finished:
        return True
    if done == total:  # which is reported when everything is finished
        return False
    if verbose > EVERY_TIME:
        return True
    if total is not None:
        return done + 1 != total and (total - done + 1) % (int(total // verbose) + 1) == 0
    lag = 0.5 * (EVERY_TIME + 1 - verbose) ** 2
    return int(sqrt((report + 1) / lag)) > int(sqrt(report / lag))


def short_time(seconds: float) -> str:
    return f"{seconds / 60:4.1f}min" if seconds > 60 else f" {seconds:5.1f}s"
