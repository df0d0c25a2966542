"""The async door: `pmap`, its request, and the ways to consume its results.

`pmap.py` has the function and the object that it returns, `plan.py` the checked request and the run that it becomes,
`stream.py` the iterator. `run.py` has `run`, a single call.

The sync door builds its runs with `plan.py`, too. Nothing else imports from here.

What must never break: bad input is refused before any worker starts; and when an `await` or an `async with` has ended, in
whatever way, no call of its run is running any more.
"""
