"""The parent's side of interpreters as workers: subinterpreters of CPython 3.14, each in a thread of this program.

`worker.py` is one worker as its parent sees it. `life.py` is its interpreter: how it starts in a thread, is interrupted, and
ends. `surroundings.py` is what a program must know that has interpreters: from which Python on there are any, that it must not
fork while one lives, and what happens to them when it ends. What is sent to them, and what comes back, is the affair of
`_processes` and `_wire`; their own side is `_child/interpreter_main.py`.

Only executors import from here.

What must never break: an interruption hits no other batch than the one it is meant for; and the program can end, whatever its
interpreters are doing.
"""
