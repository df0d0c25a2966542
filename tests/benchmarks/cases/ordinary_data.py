"""Maps over data as programs have it, there and back, over two warm workers: the wall time of the whole map.

Each kind of data is mapped twice: as a list, and as a stream whose results are taken one by one. The functions compute little,
so that what is compared is pickling, batches, and what every item costs in the parent. `Pool` and `ProcessPoolExecutor` pickle
a whole chunk in one go. That is fast, but one bad item spoils its chunk.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tests.benchmarks import ordinary
from tests.benchmarks.frame import BEST_PEER, Case, Contender, Target, missing
from tests.benchmarks.whole_maps import ASYNCPAR, POOL, PROCESS_POOL, How, median_seconds_of_map


def _map(fn: Callable[[Any], Any], make_items: Callable[[], Sequence[Any]], contender: str, how: How, quick: bool) -> float:
    return median_seconds_of_map(contender, how, fn, make_items(), quick=quick)


def _map_in_a_script(contender: str, how: How, quick: bool) -> float:
    """In a process of its own, because it has to be `__main__`."""
    options = ["--quick"] if quick else []
    command = [sys.executable, "-m", "tests.benchmarks.own_class", contender, how, *options]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _cases(name: str, data: str, measure: Callable[[str, How, bool], float], *packages: str) -> tuple[Case, ...]:
    """One case for lists and one for streams. `packages` are those without which there is no such data."""

    def case(how: How) -> Case:
        return Case(
            f"{name}-{how}",
            f"{data}, as a {how}, 2 warm workers",
            (
                Contender(ASYNCPAR, partial(measure, ASYNCPAR, how), "asyncpar", (Target(times=1.0),)),
                Contender(POOL, partial(measure, POOL, how)),
                Contender(PROCESS_POOL, partial(measure, PROCESS_POOL, how)),
            ),
            reference=BEST_PEER,
            unavailable=partial(missing, *packages),
        )

    return case("list"), case("stream")


CASES = (
    *_cases("records", "60 000 records to smaller ones", partial(_map, ordinary.summarize, ordinary.records)),
    *_cases("json-lines", "60 000 lines of JSON to dicts", partial(_map, json.loads, ordinary.json_lines)),
    *_cases("own-class", "60 000 objects of a script's own class", _map_in_a_script),
    *_cases("dataclasses", "60 000 dataclass instances to others", partial(_map, ordinary.invoice, ordinary.orders)),
    *_cases("tuples", "60 000 tuples of numbers and texts to pairs", partial(_map, ordinary.add_up, ordinary.tuples)),
    *_cases("values", "20 000 datetimes with a Decimal, a UUID and a path", partial(_map, ordinary.advance, ordinary.values)),
    *_cases("text-lengths", "60 000 texts of 1 KiB to their lengths", partial(_map, len, ordinary.texts)),
    *_cases("texts", "60 000 texts of 1 KiB to upper case", partial(_map, str.upper, ordinary.texts)),
    *_cases("bytes-results", "10 000 results of 10 KiB of bytes", partial(_map, ordinary.blob, ordinary.blob_numbers)),
    *_cases("small-arrays", "10 000 arrays of 10 KiB, there and back", partial(_map, ordinary.double, ordinary.arrays)),
    *_cases("series", "2 000 pandas Series of 100 numbers", partial(_map, ordinary.double, ordinary.series), "pandas"),
)
