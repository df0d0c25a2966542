"""Prints how the scheduler and the control law do over simulated workers, as two Markdown tables: `python -m tests.simulation`.

The first has one run a line. The second says how many of the seeds stay within a tenth of the lower bound, for runs that are
at least 50 times as long as one worker needs for the longest call.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.simulation.durations import make_profile
from tests.simulation.simulated import simulate


class _Line(NamedTuple):
    shape: str
    workers: int
    mean: float
    round_trip: float
    items: int
    ordered: bool = False


_LINES = (
    _Line("constant", 10_000, 0.1, 1e-3, 500_000),
    _Line("constant", 10_000, 0.1, 5e-2, 200_000),
    _Line("constant", 2, 1e-6, 1e-4, 10**8),
    _Line("constant", 1, 1e-5, 2e-5, 10**6),
    _Line("exponential", 256, 1e-2, 1e-3, 200_000),
    _Line("Pareto", 2, 1e-3, 1e-4, 120_000),
    _Line("Pareto", 2, 1e-3, 1e-4, 120_000, ordered=True),
    _Line("bimodal", 16, 1e-3, 1e-4, 200_000),
    _Line("sorted", 256, 1e-2, 1e-3, 200_000),
)

# Lengths that make the total 50 times workers * longest call
_SHARES = (
    ("Pareto", 2, 120_000, 100),
    ("Pareto", 16, 900_000, 40),
    ("Pareto", 256, 14_000_000, 20),
    ("drifting", 2, 4_000, 100),
    ("drifting", 16, 25_000, 100),
    ("drifting", 256, 400_000, 40),
)


_FIRST_HEAD = "| calls | workers | mean call | round trip | items | times bound | utilisation | µs a batch | peak window |"
_SECOND_HEAD = "| calls of 1 ms, round trip 0.1 ms | workers | items | seeds | worst, times bound | within 1.10 |"


def main() -> None:
    _print_head(_FIRST_HEAD)
    for line in _LINES:
        _print_line(line)
    print()
    _print_head(_SECOND_HEAD)
    for shape, workers, items, seeds in _SHARES:
        ratios = [_over_bound(shape, workers, items, seed) for seed in range(seeds)]
        within = sum(ratio <= 1.10 for ratio in ratios) / seeds
        print(f"| {shape} | {workers} | {items} | {seeds} | {max(ratios):.3f} | {within:.0%} |", flush=True)


def _print_head(head: str) -> None:
    print(head)
    print("|---" * (head.count("|") - 1) + "|", flush=True)


def _print_line(line: _Line) -> None:
    report = simulate(make_profile(line.shape, line.items, line.mean), line.workers, line.round_trip, ordered=line.ordered)
    cells = (
        f"{line.shape}, in input order" if line.ordered else line.shape,
        line.workers,
        f"{line.mean * 1e3:g} ms",
        f"{line.round_trip * 1e3:g} ms",
        line.items,
        f"{report.over_bound:.2f}",
        f"{report.utilisation:.2f}",
        f"{report.parent_seconds * 1e6:.0f}",
        report.peak_window,
    )
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def _over_bound(shape: str, workers: int, items: int, seed: int) -> float:
    profile = make_profile(shape, items, 1e-3, seed)
    assert profile.total >= 50 * workers * profile.longest, "too short a run for a bound that one long call does not decide"
    return simulate(profile, workers, 1e-4).over_bound


if __name__ == "__main__":
    main()
