"""Engines: systems that run tasks in workers of their own, and the executor that is made of one.

A pool of the standard library is an engine, and so is a cluster. `engine.py` says what an engine must be able to do, which is
little: start a task somewhere, hand out its result, and tell an error of the task from the death of a worker. `executor.py`
makes an executor of it, and `place.py` does what all of them have in common. `placing.py` sees to it that the engine keeps
large data only once. `gate.py` lets those that may have killed a worker run alone. The other side is `_child/pool_main.py`.

Only executors import from here.

What must never break: each call of a batch that was given to an engine has an outcome or comes back, whatever has died; and a
call is blamed for a death only if nothing else ran beside it.
"""
