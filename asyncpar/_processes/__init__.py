"""The parent's side of worker processes.

`worker.py` is one worker as its parent sees it, `parcel.py` what is sent to it and what comes back, `zygote_client.py` and
`zygote_start.py` how workers come to be and to an end, `reloading.py` how a program that reloads modules gets workers with the
new ones, and `memory_watch.py` whether the system has run out of memory. The pool that uses them all is `executors/process.py`.

Only executors import from here.

What must never break: no process outlives its executor, or this program, whatever ends it; and a call is blamed for a death
only if it was running then.
"""
