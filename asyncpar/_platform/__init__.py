"""The machine, the event loop and the threads that asyncpar runs on: processors, memory, background tasks, nesting, the GIL
(`gil.py`), and the threads of numerical libraries (`inner_threads.py`).

Everything but the child's side and the wire may import from here (`nesting.py`, `current_worker.py`, `own_imports.py` and
`collector.py` are for both sides). The modules know nothing of runs, batches or executors.

What must never break: the owner of a background task awaits it, even when its event loop is closed by hand (`background.py`,
`closed_loops.py`). Work that takes long runs in threads, and the caller waits for them (`off_loop.py`).
"""
