"""Which failed calls are run again, and when. No clock is read and nothing is awaited here."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from typing import TypeAlias

from asyncpar._contract.batches import BatchDone

ErrorTypes: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]

_MOST_DOUBLINGS = sys.float_info.max_exp - 1  # of one second; more would not fit into a float


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A call that fails with one of `errors` is run again, `retries` times at the most.

    Before its n-th retry it waits for `wait` * 2^(n-1) seconds, less up to half of them at random, so that calls which failed
    together do not come back together ("equal jitter", M. Brooker, Exponential Backoff and Jitter, AWS Architecture Blog 2015).
    """

    retries: int
    errors: ErrorTypes
    wait: float

    def to_retry(self, done: BatchDone) -> list[int]:
        """The positions of the calls in `done` that are to be run again, in order."""
        failures = done.batch.failures + 1
        return sorted(position for position, error in done.errors.items() if self.allows(error, failures))

    def allows(self, error: BaseException, failures: int) -> bool:
        """Whether a call that has failed `failures` times, now with `error`, is tried again."""
        return failures <= self.retries and issubclass(type(error), self.errors)

    def wait_seconds(self, failures: int) -> float:
        """How long a call that has failed `failures` times waits."""
        doublings = min(failures - 1, _MOST_DOUBLINGS)
        return self.wait * 2.0**doublings * random.uniform(0.5, 1.0)  # noqa: S311 - nothing secret
