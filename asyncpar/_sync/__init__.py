"""The sync doors: `Parallel` and `delayed`, under joblib's names and with its habits; `map`, `call` and `PoolExecutor`.

`parallel.py` has the names, and `config.py` has `parallel_config` and its like. `calls.py` makes columns of calls.
`parallel_call.py` hands a call to the event loop of the portal (`portal.py`) and waits; `kept_executor.py` keeps an executor
for the next call. `reporting.py` and `call_reports.py` print.

`blocking_map.py`, `call.py` and `pool_executor.py` have the other names, and `doors.py` says where their calls run.
`portal_run.py` waits for what runs in the portal; `dispatcher.py` has the calls of a `PoolExecutor`.

Nothing imports from here. Workers import `parallel.py`, so it imports nothing heavy before there is a call.

What must never break: Ctrl-C ends a call at once and leaves nothing running; and the user's iterable is pulled only in the
thread that waits for its results.
"""
