"""The process in which one contender is measured once: `python -m tests.benchmarks.measure CASE CONTENDER [--quick]`.

The last line that it prints is the reading, as JSON. Workers of some peers import this module as their `__main__`.
"""

from __future__ import annotations

import json
import sys

from tests.benchmarks.cases import CASES
from tests.benchmarks.frame import Reading


def main(case_name: str, contender_name: str, *options: str) -> None:
    case = next(case for case in CASES if case.name == case_name)
    measured = case.contender(contender_name).measure("--quick" in options)
    reading = measured if isinstance(measured, Reading) else Reading(measured)
    print(f"\n{json.dumps(reading)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
