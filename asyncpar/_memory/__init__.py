"""Shared memory, on both sides: large buffers lie in nameless files, and only a few numbers about them travel.

Read `loans.py` first: who owns a file, who borrows from it, and how a loan ends without a message. `blocks.py` finds room in
a file. `placer.py` copies an object once for the many calls that share it. `buffers.py` defines what is sent instead of a
shared buffer. `options.py` reads `max_nbytes` and `mmap_mode`.

Modules that pack or read messages may import from here: the wire, the child's side, and the parent's side of processes.
Nothing here imports numpy, anyio or the wire.

What must never break: a block is used again only when no view of it is left, and nothing is left behind, whichever process
dies.
"""
