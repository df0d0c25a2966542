"""loky's pool that serves a whole program. What most code does with it is to end joblib's warm workers, so that ends ours."""

from __future__ import annotations

from typing import Any

from asyncpar._sync.kept_executor import close_shared_executors
from asyncpar.joblib.externals.loky.process_executor import ProcessPoolExecutor


class _ReusablePoolExecutor(ProcessPoolExecutor):
    """Its end is also the end of the workers that `Parallel` has kept warm."""

    is_shut_down = False

    def shutdown(self, wait: bool = True, kill_workers: bool = False, *, cancel_futures: bool = False) -> None:
        self.is_shut_down = True
        super().shutdown(wait, cancel_futures=cancel_futures or kill_workers)
        close_shared_executors()


def get_reusable_executor(
    max_workers: int | None = None,
    context: Any = None,
    timeout: float | None = None,
    kill_workers: bool = False,
    reuse: Any = "auto",
    **options: Any,
) -> _ReusablePoolExecutor:
    """A pool with so many workers, the same as the last time unless that has been shut down or had other options.

    `timeout` and `options`: as in `ProcessPoolExecutor`. `reuse`: False makes another. The rest is accepted for loky's sake.
    """
    global _last
    asked = (max_workers, timeout, options)
    if reuse is not False and _last is not None and not _last[1].is_shut_down and asked == _last[0]:
        return _last[1]
    executor = _ReusablePoolExecutor(max_workers, timeout=timeout, **options)
    _last = asked, executor
    return executor


_last: tuple[Any, _ReusablePoolExecutor] | None = None
