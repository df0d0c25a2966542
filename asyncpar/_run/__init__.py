"""One run, from first item to last outcome: pull, cut, pack, lease, hand back.

`scheduler.py` is the loop. `sources.py` makes one source of the iterables, and
`segments.py` keeps what is pulled ahead. Where a run has a rate, `token_bucket.py` says when calls may begin, and
`rate_limit.py` waits for that. `batching.py` says how long batches should be, and
`feedback.py` reports to it how long they were. `sinks.py` puts results in order. `outcomes.py` and `retrying.py` say what
becomes of failures, and `statistics.py` and `progress.py` how far a run is. `answering.py` finds results in the cache, with
`looking_up.py` and `keyed_session.py`; only runs of cached functions load it. `seeded_session.py` tells calls their indices.

The async and the sync door import from here. Nothing here knows an executor by name: a run is given one.

What must never break: every item comes out once, memory does not grow with the input, and nothing of the run is alive when
`drive` returns.
"""
