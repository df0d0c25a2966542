"""The disk cache: what a function has returned is kept in files, and equal calls get it from there.

Keys say which call: `keys.py`, over `functions.py`, `sources.py` and `followed.py` (what a function is), `binding.py`,
`forms.py` and `parts.py` (what its arguments are), with `array_parts.py`, `frame_parts.py` and `arrow_parts.py` for libraries.

Entries hold the results: `store.py`, over `entries.py`, `inputs.py`, `serializers.py`, `compression.py` and `digests.py`.
`locks.py` and `flights.py` see that a key is computed once, `pruning.py`, `pruner.py` and `tally.py` keep to
limits. Their files are opened by `beside.py`.

Users meet `memory.py`, `cached.py`, `shelved.py`, `persist.py` and `command.py`. Maps look twins up by `shelf.py`, and their
workers compute by the functions at the end of `cached.py`.

Workers import from here, so it imports nothing heavy before there is a call: blake3, numpy and anyio only when they are needed.

What must never break: a call never gets the result of another call, or a damaged one. Whatever cannot be read is computed
again. Nothing that is not trusted is unpickled.
"""
