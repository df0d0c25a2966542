"""All cases, in the order of the table. To add one: write it in a file of its own here, and add it to this tuple."""

from __future__ import annotations

from tests.benchmarks.cases import (
    cold_start,
    imports,
    one_item,
    scheduler_cost,
    service,
    short_calls,
    tiny_items,
    worker_start,
)
from tests.benchmarks.frame import Case

CASES: tuple[Case, ...] = (
    *one_item.CASES,
    *worker_start.CASES,
    *short_calls.CASES,
    *scheduler_cost.CASES,
    *imports.CASES,
    *service.CASES,
    *tiny_items.CASES,
    *cold_start.CASES,
)
