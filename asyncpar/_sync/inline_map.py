"""`map` with `executor="inline"`: the calls are made one after another in the thread that iterates, without any event loop."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator
from typing import Any

from asyncpar._basics.notes import add_note
from asyncpar._basics.wording import short_repr
from asyncpar._child.seeded_calls import SeededCall
from asyncpar._child.unawaited import is_unawaited, refusal
from asyncpar._map.plan import Plan
from asyncpar._run.progress import open_meter
from asyncpar._run.sources import IteratorSource, Source
from asyncpar._run.statistics import Statistics
from asyncpar._sync.doors import timed
from asyncpar._sync.parallel import SKIPPED
from asyncpar._sync.retrying_caller import RetryingCaller


def map_inline(plan: Plan) -> Generator[Any, None, None]:
    """The results of a checked plan, each computed when it is asked for."""
    options, source = plan.options, plan.source
    make_call, fn = RetryingCaller(options.retrying(), options.on_error), timed(plan.fn, options.timeout)
    if options.seed is not None:
        fn = SeededCall(fn, options.seed)
    meter = open_meter(options.progress)
    began, busy = time.monotonic(), 0.0
    try:
        for index in itertools.count():
            columns = source.take(1)
            if not columns:
                break
            row = [column[0] for column in columns]
            call_began = time.monotonic()
            try:
                value = make_call(fn, row if options.seed is None else [*row, index], {})
            except BaseException as error:
                item = row[0] if len(row) == 1 else tuple(row)
                add_note(error, f"raised by call {index}, item {short_repr(item)}, in the caller's thread")
                raise
            if is_unawaited(value):
                raise refusal(value)
            now = time.monotonic()
            busy += now - call_began
            if meter is not None:
                meter.update(
                    Statistics(index + 1, index + 1, 0, index, 1, index + 1, 1, 1, busy, now - began), source.remaining
                )
            if value is not SKIPPED:
                yield value
        if source.error is not None:
            raise source.error
    finally:
        if meter is not None:
            meter.close()
        _close(source)


def _close(source: Source) -> None:
    if isinstance(source, IteratorSource):
        source.close()
