"""The disk cache: what a function has returned is kept in files, and equal calls get it from there.

A key says which call (`keys.py`, over `functions.py`, `forms.py`, `parts.py`, `binding.py`).

Workers import from here, so it imports nothing heavy before there is a call: blake3, numpy and asyncio only when they are
needed.

What must never break: a call never gets the result of another call, or a damaged one. Whatever cannot be read is computed
again.
"""
