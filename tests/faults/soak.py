"""Chaos for as long as you like, on each event loop in turn: `python -m tests.faults.soak --seconds 600 --seed 1`.

Then many runs, cancelled runs and killed workers in a row, for what they leave in the parent. The exit status is 1 if anything
was lost, duplicated, wrong, shifted or left, or did not go as planned; what is printed names the seed of its round.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from asyncpar.testing.leftovers import belongings, busy_threads, join_new_threads, left_since
from tests.faults.chaos import Figures, chaos
from tests.faults.growth import growth_of_cancelled_runs, growth_of_killed_workers, growth_of_runs
from tests.faults.test_counts import MEMORY

_LOOPS: dict[str, dict[str, Any]] = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}
_ROUND_SECONDS = 10.0
_COUNTS = ((growth_of_runs, 10_000), (growth_of_cancelled_runs, 1000), (growth_of_killed_workers, 500))


def main() -> int:
    options = _parse_options()
    total = _soak(options.seconds, options.seed)
    print(f"\n{total}", flush=True)
    for complaint in total.complaints:
        print(f"- {complaint}")
    grown = _count() if options.counts else 0
    wrong = total.lost or total.duplicated or total.wrong or total.shifted or total.left
    return 1 if total.complaints or wrong or grown else 0


def _soak(seconds: float, seed: int) -> Figures:
    total = Figures()
    end = time.monotonic() + seconds
    for round_seed, (name, loop) in zip(itertools.count(seed), itertools.cycle(_LOOPS.items()), strict=False):
        if time.monotonic() >= end:
            return total
        total += _round(round_seed, min(_ROUND_SECONDS, end - time.monotonic()), loop)
        print(f"seed {round_seed}, {name}: {total}", file=sys.stderr, flush=True)
    raise AssertionError("itertools.count ends never")


def _round(seed: int, seconds: float, loop: dict[str, Any]) -> Figures:
    anyio.run(anyio.lowlevel.checkpoint, **loop)  # what an event loop makes once for the whole process is not ours
    with tempfile.TemporaryDirectory(prefix="asyncpar-soak-") as name:
        directory = Path(name)
        before, threads = belongings(directory), busy_threads()
        figures = anyio.run(chaos, seed, seconds, directory, **loop)
        for executions in directory.glob("executions *"):
            executions.unlink()
        gc.collect()
        join_new_threads(threads)
        left = left_since(before, directory)
    if left:
        figures.left += sum(map(len, left.values()))
        figures.complaints.append(f"seed {seed}: it left behind {left}")
    return figures


def _count() -> bool:
    """Prints what many in a row leave; returns whether that is more than nothing."""
    grown = False
    for (name, loop), (measure, times) in itertools.product(_LOOPS.items(), _COUNTS):
        with tempfile.TemporaryDirectory(prefix="asyncpar-soak-") as directory:
            growth = anyio.run(measure, times, Path(directory), **loop)
        print(f"{name}, {measure.__name__.replace('_', ' ')}, {times}: {growth}", flush=True)
        grown |= max(growth[:3]) > 0 or growth.memory >= MEMORY
    return grown


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description="Chaos, and what it leaves.")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long the chaos goes on (default 600)")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each further round has the next (default 1)")
    parser.add_argument("--counts", action="store_true", help="then 10 000 runs, 1 000 cancelled, 500 workers killed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
