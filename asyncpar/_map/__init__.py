"""The async door: `pmap`, what it was asked for, and the ways to consume it.

`pmap.py` has the function and the object that it returns, `plan.py` the options, their checks and the run that they become,
`stream.py` the iterator.

The sync door builds its runs with `plan.py`, too. Nothing else imports from here.

What must never break: bad input is refused before any worker starts; and however an `await` or an `async with` ends, no call
of its run is running any more.
"""
