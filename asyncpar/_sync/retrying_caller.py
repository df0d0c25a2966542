"""What `retries` and `on_error` mean where calls are made one by one in the caller's own thread."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asyncpar._basics.wording import stand_in
from asyncpar._platform.current_worker import call_in_callers_thread
from asyncpar._run.outcomes import OnError
from asyncpar._run.retrying import RetryPolicy
from asyncpar._sync.parallel import SKIPPED


class RetryingCaller:
    """Makes calls, and retries those that fail. The final error is raised or returned, or SKIPPED is returned for it."""

    def __init__(self, retrying: RetryPolicy | None, on_error: OnError) -> None:
        self._retrying = retrying
        self._on_error = on_error

    def __call__(self, function: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        for failures in itertools.count(1):
            try:
                return call_in_callers_thread(function, arguments, keywords)
            except (Exception, SystemExit, GeneratorExit) as error:  # Ctrl-C is the program's own here
                if self._retrying is not None and self._retrying.allows(error, failures):
                    time.sleep(self._retrying.wait_seconds(failures))
                elif self._on_error == "raise":
                    raise
                else:
                    return _as_value(error) if self._on_error == "return" else SKIPPED
        raise AssertionError("unreachable: it counts forever")


def _as_value(error: BaseException) -> BaseException:
    """A call must not end the program, wherever its error is raised again."""
    return error if isinstance(error, Exception) else stand_in(error, "a task")
