"""The backend as joblib sees it: a `ParallelBackendBase` whose jobs run in asyncpar's portal.

joblib pulls the tasks, makes batches of them and hands out the results, as with each of its backends. asyncpar gets a batch as
a job (`jobs.py`), and does the rest: pickling, shared memory, workers, their deaths.

- **Each `Parallel` has a backend of its own.** `parallel_config` makes one for all calls in its context, which may overlap, as
  those of generators do. So `configure` of that one makes joblib fall back to a new one.
- **Ordered results are waited for.** Where a backend tells results in the callback, joblib looks every 10 ms for them. Where it
  does not, joblib calls `retrieve_result`, which can wait. Results in the order of completion can only come the first way.
- **In a task, no more processes are started**, whether it runs in a worker or in a thread of joblib's. `configure` falls back
  to what joblib would use there without a name: threads in a task, and a plain loop in a task of that.
- **Batches are as long as with joblib's own workers**: from 0.2 to 2 seconds, where joblib finds their size by itself.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import joblib.parallel as joblib_parallel  # type: ignore[import-untyped]  # it has no type information
from joblib.parallel import FallbackToBackend, SequentialBackend, ThreadingBackend

from asyncpar._platform.cpus import resolve_n_jobs
from asyncpar._sync.backends import Backend, find_backend, to_int
from asyncpar._sync.kept_executor import KeptExecutor, open_executor
from asyncpar._sync.portal import current_portal
from asyncpar._sync.settings import make_hints
from asyncpar.joblib.jobs import Job, Jobs

AutoBatching: Any = joblib_parallel.AutoBatchingMixin  # otherwise types would be guessed that are wrong
BackendBase: Any = joblib_parallel.ParallelBackendBase


class AsyncparBackend(AutoBatching, BackendBase):  # type: ignore[misc]  # it has no types
    """What joblib makes for the name "asyncpar"."""

    supports_inner_max_num_threads = True
    supports_return_generator = True
    supports_timeout = True

    def __init__(self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **params: Any) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._params = params
        self._is_of_one_call = False
        self._jobs: Jobs | None = None
        self._kept = KeptExecutor()

    @property
    def supports_retrieve_callback(self) -> bool:
        """Whether callbacks tell the results; see above."""
        return self._is_of_one_call and not self.parallel.return_ordered

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many workers a call with this `n_jobs` has."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        return 1 if n_jobs is None else resolve_n_jobs(to_int(n_jobs))

    def configure(
        self,
        n_jobs: int | None = 1,
        parallel: Any = None,
        prefer: Any = None,
        require: Any = None,
        max_nbytes: Any = None,
        mmap_mode: Any = "r",
        temp_folder: Any = None,
        context: Any = None,
        verbose: Any = 0,
        **params: Any,
    ) -> int:
        """Called before each call of `parallel`, or at the beginning of its `with`; returns the number of workers.

        `max_nbytes` and `mmap_mode` say how large arrays are shared. No folder is needed for that, and `prefer` and `require`
        have led here already.

        Raises:
            FallbackToBackend: another backend is to be used.
            TypeError: there is no such parameter.
        """
        n_jobs = self.effective_n_jobs(n_jobs)
        level = self.nesting_level or 0
        if n_jobs == 1 or level > 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=level))
        if level == 1:
            raise FallbackToBackend(ThreadingBackend(nesting_level=level))
        params = self._params | params
        if not self._is_of_one_call:
            raise FallbackToBackend(self._for_one_call(params))
        found = find_backend("process", n_jobs, self.inner_max_num_threads, params)
        hints = make_hints(None, max_nbytes, mmap_mode)
        self.parallel = parallel
        self._start = partial(self._make_jobs, found, n_jobs, hints)
        self._start()
        return n_jobs

    def _for_one_call(self, params: dict[str, Any]) -> AsyncparBackend:
        own = AsyncparBackend(self.nesting_level, self.inner_max_num_threads, **params)
        own._is_of_one_call = True
        return own

    def _make_jobs(self, found: Backend, n_jobs: int, hints: Any) -> None:
        executor_of_call = partial(self._open_executor, found, n_jobs)
        fail = self._fail if self.supports_retrieve_callback else None
        self._jobs = Jobs(executor_of_call, n_jobs, hints, self.parallel._lock, fail)
        self._jobs.start()

    def _fail(self, error: BaseException) -> None:
        """Ends the call as joblib does when the iterable raises an `Exception`. After other errors it would wait."""
        tracker = joblib_parallel.BatchCompletionCallBack(0, 1, self.parallel)
        if hasattr(self.parallel, "_jobs_set"):
            self.parallel._jobs_set.add(tracker)
        else:  # joblib 1.4, where a tracker does not enter the queue by itself
            self.parallel._jobs.append(tracker)
        tracker._register_outcome({"result": error, "status": joblib_parallel.TASK_ERROR})

    def _open_executor(self, found: Backend, n_jobs: int) -> Any:
        executor, _ = open_executor(found, n_jobs, current_portal(), self._kept)
        return executor

    def start_call(self) -> None:
        """Called before a call dispatches anything. joblib leaves what a failed call had not dispatched to the next call of the
        same `Parallel`, which would return it as results of its own.
        """
        ready = self.parallel._ready_batches
        while not ready.empty():
            ready.get()

    def submit(self, func: Any, callback: Any = None) -> Job:
        """Runs joblib's batch; returns at once."""
        assert self._jobs is not None, "joblib configures a backend before it submits"
        return self._jobs.submit(func.items, callback)

    apply_async = submit  # joblib 1.4 knows it by this name

    def retrieve_result(self, out: Job, timeout: float | None = None) -> list[Any]:
        """Waits for what `submit` has returned. A generator that outlives its `with` asks for results after the end."""
        return out.get(timeout)

    def retrieve_result_callback(self, out: Job) -> list[Any]:
        """The result of a job that is done."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Ends all tasks, and returns when none is running. `ensure_ready`: more may be submitted then."""
        self._end_jobs()
        if ensure_ready:
            self._start()

    def terminate(self) -> None:
        """Called at the end of a call, or of a `with`. Shared workers stay warm."""
        try:
            self._end_jobs()
        finally:
            self._kept.close()

    def _end_jobs(self) -> None:
        jobs, self._jobs = self._jobs, None
        if jobs is not None:
            jobs.end()
        self.reset_batch_stats()
