"""What the machine, the event loop and the threads below us are like: processors, memory, background tasks, nesting.

Everything but the child's side and the wire may import from here (`nesting.py` is for both sides). The modules know nothing
of runs, batches or executors.

What must never break: a background task is awaited by whoever owns it, also when its event loop is closed by hand
(`background.py`, `closed_loops.py`); and what takes long is done off the loop by threads that the caller waits for
(`off_loop.py`).
"""
