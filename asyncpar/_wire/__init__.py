"""What travels between processes: how calls and results become bytes, and how the bytes are carried.

`codec.py` makes bytes of columns of values and reads them back; `pickler.py`, `code_objects.py`, `bound_objects.py` and
`unfinished.py` say how single objects are pickled, `failures.py` does so for exceptions, and `blame.py` finds what in an
object cannot be. `frames.py` cuts a stream of bytes into messages, and the channels carry them: `channel.py` blocks,
`async_channel.py` awaits. `pace.py` keeps all that from holding an event loop.

The child's side and the parent's side of processes import from here. Only `async_channel.py` and `readiness.py`, which are the
parent's, import anyio; `arrays.py` imports numpy, and is imported where numpy is.

What must never break: an element that cannot be pickled or read costs its own call and no other, and what comes out of a stream
does not depend on how it was cut into pieces.
"""
