"""All cases, in the order of the table. To add one: write it in a file of its own here, and add it to this tuple."""

from __future__ import annotations

from tests.benchmarks.cases import (
    big_arrays,
    busy_calls,
    cache,
    cold_start,
    coroutine_stream,
    imports,
    inner_loop,
    interpreters,
    joblib_backend,
    joblib_habits,
    loop_lag,
    one_item,
    ordinary_data,
    parallel,
    recovery,
    scheduler_cost,
    service,
    small_beside_big,
    stream_memory,
    tiny_items,
    worker_coroutines,
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
    *ordinary_data.CASES,
    *loop_lag.CASES,
    *service.CASES,
    *stream_memory.CASES,
    *coroutine_stream.CASES,
    *worker_coroutines.CASES,
    *scheduler_cost.CASES,
    *worker_start.CASES,
    *recovery.CASES,
    *interpreters.CASES,
    *imports.CASES,
    *cold_start.CASES,
    *parallel.CASES,
    *joblib_habits.CASES,
    *joblib_backend.CASES,
    *cache.CASES,
)
