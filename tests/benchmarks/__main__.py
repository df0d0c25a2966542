"""The command: picks cases, has them measured, prints the machine and the table on stdout and the progress on stderr, and
draws the plot if it was asked for.

The exit status is 1 if something could not be measured. A missed target is not a failure: that is what the table is for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from tests.benchmarks import machine
from tests.benchmarks.cases import CASES
from tests.benchmarks.report import Report, report_case
from tests.benchmarks.rounds import measure_rounds
from tests.benchmarks.table import to_markdown


def main() -> int:
    options = _parse_options()
    described = machine.describe()
    print("\n".join(f"- {line}" for line in described), end="\n\n", flush=True)
    remarks: list[str] = []
    failures: list[str] = []
    reports = list(_measure(options, remarks, failures))
    print(to_markdown(reports))
    for remark in remarks + failures:
        print(f"\n{remark}")
    if options.plot is not None:
        from tests.benchmarks.plot import draw  # late: nothing that is measured beside it may pay for matplotlib

        draw(reports, described, options.plot)
    return 1 if failures else 0


def _measure(options: argparse.Namespace, remarks: list[str], failures: list[str]) -> Iterator[Report]:
    for case in CASES:
        if options.case and not case.name.startswith(tuple(options.case)):
            continue
        reason = case.unavailable()
        if reason is not None:
            remarks.append(f"{case.name} was skipped: {reason}")
            continue
        readings = measure_rounds(case, options.rounds, quick=options.quick, failures=failures)
        yield report_case(case, readings)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measures asyncpar and its peers.")
    parser.add_argument("--case", action="append", default=[], metavar="NAME", help="cases whose names begin so; repeatable")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="measurements of each contender (default 5)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the repetitions: rough, for a first look")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios too, as SVG; takes matplotlib")
    parser.add_argument("--list", action="store_true", help="list the cases and exit")
    options = parser.parse_args()
    if options.list:
        for case in CASES:
            print(f"{case.name:24} {case.title}")
        parser.exit()
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if options.plot is not None and find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib, which is part of the `bench` extra")
    for name in options.case:
        if not any(case.name.startswith(name) for case in CASES):
            parser.error(f"no case begins with {name!r}; known are {', '.join(case.name for case in CASES)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
