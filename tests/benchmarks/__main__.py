"""The command: picks cases, has them measured, prints the machine and the table on stdout and the progress on stderr.

The exit status is 1 if something could not be measured. A missed target is not a failure: that is what the table is for.
"""

from __future__ import annotations

import argparse
import sys

from tests.benchmarks import machine
from tests.benchmarks.cases import CASES
from tests.benchmarks.frame import Case
from tests.benchmarks.report import report_case, to_markdown
from tests.benchmarks.rounds import measure_rounds


def main() -> int:
    options = _parse_options()
    print(machine.describe(), end="\n\n", flush=True)
    rows = []
    failures: list[str] = []
    skipped: list[str] = []
    for case in _pick(options.case):
        reason = case.unavailable()
        if reason is not None:
            skipped.append(f"{case.name} was skipped: {reason}")
            continue
        readings = measure_rounds(case, options.rounds, quick=options.quick, failures=failures)
        rows += report_case(case, readings)
    print(to_markdown(rows))
    for remark in skipped + failures:
        print(f"\n{remark}")
    return 1 if failures else 0


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measures asyncpar and its peers.")
    parser.add_argument("--case", action="append", default=[], metavar="NAME", help="cases whose names begin so; repeatable")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="measurements of each contender (default 5)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the repetitions: rough, for a first look")
    parser.add_argument("--list", action="store_true", help="list the cases and exit")
    options = parser.parse_args()
    if options.list:
        for case in CASES:
            print(f"{case.name:24} {case.title}")
        parser.exit()
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    for name in options.case:
        if not any(case.name.startswith(name) for case in CASES):
            parser.error(f"no case begins with {name!r}; known are {', '.join(case.name for case in CASES)}")
    return options


def _pick(names: list[str]) -> list[Case]:
    return [case for case in CASES if not names or case.name.startswith(tuple(names))]


if __name__ == "__main__":
    sys.exit(main())
