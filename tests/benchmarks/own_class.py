"""A script that maps over instances of a class of its own: `python -m tests.benchmarks.own_class CONTENDER HOW [--quick]`.

Its class is `__main__.Reading`, which no worker can import by that name. asyncpar sends it by value, without a guard at the end
of the script; workers of the peers run the script again as a module. It prints the seconds.
"""

from __future__ import annotations

import sys
from typing import cast

from tests.benchmarks.whole_maps import How, median_seconds_of_map

_READINGS = 60_000


class Reading:
    def __init__(self, number: int, sensor: str, value: float) -> None:
        self.number = number
        self.sensor = sensor
        self.value = value


def calibrate(reading: Reading) -> Reading:
    return Reading(reading.number, reading.sensor, reading.value * 1.02 - 0.3)


def main(contender: str, how: str, *options: str) -> None:
    readings = [Reading(number, f"sensor {number}", number / 7) for number in range(_READINGS)]
    print(median_seconds_of_map(contender, cast("How", how), calibrate, readings, quick="--quick" in options))


if __name__ == "__main__":
    main(*sys.argv[1:])
