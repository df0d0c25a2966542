"""The contract between the scheduler and executors. `asyncpar.executors` shows it to users.

`executor.py` has what an executor must offer, `lending.py` a helper that lends places in turn, `admission.py` the limit to what
waits for them, and `batches.py` the batches that go out and what comes back. `single_call.py` makes single calls, `indices.py`
numbers workers, and `life.py` is the task of an executor that has something to end.

The scheduler and all executors import from here, and nothing from each other.

What must never break: for every call of a batch there is an outcome, or it comes back to be run again; and when a place has
given back a batch, none of its calls is running any more, unless its fate says so.
"""
