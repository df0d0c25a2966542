"""The child's side: the code that runs in workers.

`zygote.py` forks workers, and `process_main.py` is the main program of one. `interpreter_main.py` is that of an interpreter,
and `interrupter.py` ends what runs there. Both answer frames by `frame_server.py` and `batch_server.py`. `run_batch.py` is
the inner loop that makes the calls (threads use it, too), and `run_coroutines.py` does the same for coroutine functions.
`protocol.py` defines the messages between parent, zygote and worker, and `control.py` the page that parent and worker share.
`keyed_calls.py` makes the calls that the parent has not found in the cache, `seeded_calls.py` those that have a random stream,
and `carried_context.py` has them see context variables of their caller. `worker_state.py` enters and leaves what an initializer
makes (for threads, too).

The parent imports from here what both sides must agree on. Nothing here imports asyncio, anyio or numpy unless it is needed
(only `run_coroutines.py`, which is imported for coroutine functions, needs asyncio). So a worker starts in a millisecond. The
user's functions may import anything.

What must never break: the results are those of `[fn(*row) for row in zip(*columns)]`, for a prefix of the rows, whatever the
calls raise; and a worker ends when its parent does.
"""
