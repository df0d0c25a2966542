"""What travels between processes: how calls and results become bytes, and how the bytes are carried.

`codec.py` turns columns of values into bytes and reads them back. `pickler.py`, `code_objects.py`, `bound_objects.py`,
`context_variables.py` and `unfinished.py` define how single objects are pickled, and `failures.py` does so for exceptions.
`blame.py` finds the part of an object that cannot be pickled. `frames.py` cuts a stream of bytes into messages, and the
channels carry them: `channel.py` blocks, `async_channel.py` awaits. `pace.py` keeps all this from blocking an event loop.

The child's side and the parent's side of processes import from here. Only `async_channel.py` and `readiness.py`, which belong
to the parent, import anyio. `arrays.py` imports numpy, and is imported only if numpy is loaded. `views.py` is what takes the
place of arrays in interpreters, and `tracebacks.py` is imported when a call has failed.

What must never break: an element that cannot be pickled or read makes only its own call fail, and the messages that come out of
a stream do not depend on how it was cut into pieces.
"""
