"""All cases, in the order of the table. To add one: write it in a file of its own here, and add it to this tuple."""

from __future__ import annotations

from tests.benchmarks.cases import (
    big_arrays,
    busy_calls,
    cache,
    cold_start,
    imports,
    inner_loop,
    loop_lag,
    one_item,
    parallel,
    recovery,
    scheduler_cost,
    service,
    small_beside_big,
    stream_memory,
    tiny_items,
    worker_start,
)
from tests.benchmarks.frame import Case

CASES: tuple[Case, ...] = (
    *one_item.CASES,
    *small_beside_big.CASES,
    *tiny_items.CASES,
    *inner_loop.CASES,
    *busy_calls.CASES,
    *big_arrays.CASES,
    *loop_lag.CASES,
    *service.CASES,
    *stream_memory.CASES,
    *scheduler_cost.CASES,
    *worker_start.CASES,
    *recovery.CASES,
    *imports.CASES,
    *cold_start.CASES,
    *parallel.CASES,
    *cache.CASES,
)
