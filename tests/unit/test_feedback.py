"""The feedback coroutine: every timing reaches the control law, and the history stays small."""

from __future__ import annotations

import anyio
import pytest

from asyncpar._run.batching import AdaptiveSizer, BatchTiming
from asyncpar._run.feedback import Feedback

pytestmark = pytest.mark.anyio


class Recording(AdaptiveSizer):
    def __init__(self) -> None:
        super().__init__()
        self.observed: list[int] = []

    def observe(self, timing: BatchTiming) -> int:
        self.observed.append(timing.calls)
        return super().observe(timing)


def timing(calls: int) -> BatchTiming:
    return BatchTiming(calls, 1e-3 * calls, 1e-3 * calls + 1e-4, None, 2)


async def run_with(feedback: Feedback, reports: int) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(feedback.run)
        for calls in range(1, reports + 1):
            feedback.report(timing(calls))
            if calls % 3 == 0:
                await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()


@pytest.mark.parametrize("slots", [1, 4])
async def test_every_timing_arrives_also_when_the_stream_is_full(slots: int) -> None:
    sizer = Recording()
    await run_with(Feedback(sizer, slots), 20)
    assert sorted(sizer.observed) == list(range(1, 21))


async def test_the_history_spans_the_run_and_stays_small() -> None:
    feedback = Feedback(AdaptiveSizer(), 4)
    await run_with(feedback, 5000)
    batches = [state.batches for state in feedback.history]
    assert 100 <= len(batches) < 256
    assert batches == list(range(batches[0], batches[-1] + 1, batches[0]))
    assert batches[-1] > 5000 - batches[0]
