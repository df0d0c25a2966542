"""The parent's side of worker processes, and what is the same for all workers that are sent frames.

`worker.py` is one worker as its parent sees it, and `parcel.py` is what is sent to it and what comes back. `frame_worker.py`
and `sessions.py` are what processes and interpreters have in common. `zygote_client.py` and `zygote_start.py` start and end
workers. `verdicts.py` decides which call is to blame for a death. `reloading.py` makes sure that a program that reloads
modules gets workers with the new ones. `carrying.py` says which context variables go to workers. `memory_watch.py` tells
whether the system has run out of memory. The pool that uses them all is `executors/process.py`.

Only executors and `_interpreters` import from here.

What must never break: no process outlives its executor, or this program, however these end; and a call is blamed for a death
only if it was running then.
"""
