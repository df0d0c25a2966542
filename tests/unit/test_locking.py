"""What several threads share does not rely on a global interpreter lock."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

from asyncpar._basics.locking import ModuleLock, Numbers
from asyncpar._basics.notes import add_note


class LosesCounts:
    """A counter as it would be without any lock: a second thread that comes between looking and adding gets the same number."""

    def __init__(self) -> None:
        self.number = 0
        self.has_looked = threading.Event()
        self.has_added = threading.Event()

    def __next__(self) -> int:
        number = self.number
        if not self.has_looked.is_set():
            self.has_looked.set()
            self.has_added.wait(0.1)  # for the other thread, which must not get here
        self.number = number + 1
        self.has_added.set()
        return number


def test_no_two_threads_get_the_same_number() -> None:
    counter: Any = LosesCounts()
    numbers = Numbers()
    numbers._numbers = counter
    drawn: list[int] = []
    first = threading.Thread(target=lambda: drawn.append(next(numbers)))
    first.start()
    counter.has_looked.wait()
    drawn.append(next(numbers))
    first.join()
    assert sorted(drawn) == [0, 1]


def test_numbers_begin_where_they_are_told() -> None:
    numbers = Numbers(7)
    assert [next(numbers), next(numbers)] == [7, 8]


FORKS = """
import os, threading
from asyncpar._basics.locking import ModuleLock

lock = ModuleLock()
holds, may_end = threading.Event(), threading.Event()


def hold():
    with lock:
        holds.set()
        may_end.wait()


thread = threading.Thread(target=hold)
thread.start()
holds.wait()
pid = os.fork()
if not pid:
    with lock:
        os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
may_end.set()
"""


def test_a_forked_copy_finds_the_lock_free() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.stderr, done.stdout) == ("", "7\n")


def test_a_lock_lets_one_in_at_a_time() -> None:
    lock, is_inside = ModuleLock(), threading.Event()

    def enter() -> None:
        with lock:
            is_inside.set()

    with lock:
        thread = threading.Thread(target=enter)
        thread.start()
        assert not is_inside.wait(0.05)
    thread.join()
    assert is_inside.is_set()


def test_notes_of_two_threads_on_one_error_are_both_there(monkeypatch: Any) -> None:
    """The second thread adds its note while the first looks at those that are there."""
    error = ValueError("shared")
    others: list[threading.Thread] = []

    class Watched(list[str]):
        def __iter__(self) -> Any:
            if not others:
                others.append(threading.Thread(target=add_note, args=(error, "second", 2)))
                others[0].start()
                others[0].join(0.05)
            return super().__iter__()

    add_note(error, "zeroth", 0)
    monkeypatch.setattr("asyncpar._basics.notes.enumerate", lambda notes: enumerate(Watched(notes)), raising=False)
    add_note(error, "first", 1)
    others[0].join()
    assert error.__notes__ == ["asyncpar: zeroth", "asyncpar: first", "asyncpar: second"]
