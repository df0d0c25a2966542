"""The child's side: what runs where the calls are made.

`zygote.py` forks workers, `process_main.py` is the life of one, `run_batch.py` is the inner loop that makes the calls
(threads use it, too) and `run_coroutines.py` its twin for coroutine functions. `protocol.py` is what parent, zygote and
worker say to each other, `control.py` the page that they see together.

The parent imports from here what both sides must agree on. Nothing here imports asyncio, anyio or numpy on its own account
(`run_coroutines.py`, imported when there is a coroutine function, needs asyncio): a worker starts in a millisecond, and what
the user's functions import is theirs.

What must never break: the results are those of `[fn(*row) for row in zip(*columns)]`, for a prefix of the rows, whatever the
calls raise; and a worker ends when its parent does.
"""
