"""Prunes beside the calls that store: in a thread of its own, which begins when it is needed and ends when it is done.

A cache of 50 000 entries takes a second to prune, and one of millions a minute. The caller whose result exceeded the limit has
done nothing to deserve that. (A cache of few entries is pruned by the caller. So a program that has just filled one, and
removes its folder again, meets no thread that writes there.)

- One store has at most one such thread. It belongs to the interpreter, which waits for it at its end, as long as the pruning
  takes: a program that stores and ends, again and again, would else never be within its limits.
- A process that is killed leaves it half done. Each entry is removed at once or not at all, and the next process that stores
  something looks at the size again.
- A program that stores faster than it can prune waits for the pruning that runs already, once there is a tenth too much. So
  does one whose limit is smaller than some results.

Refused: a daemon thread, which dies in the middle and lets a cache grow for ever; a portion with each store, which makes all of
them slow, and needs a place to remember how far it has come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Pruner:
    """The thread that prunes one store, if it does."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, prune: Callable[[], object]) -> None:
        """Prunes soon, unless that is being done."""
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None or not self._thread.is_alive():  # in a forked child, the thread of its parent is not
                thread = threading.Thread(target=prune, name="asyncpar cache pruning", daemon=False)
                thread.start()
                self._thread = thread  # only now: others may be waiting to join it
        except RuntimeError:  # the interpreter is ending, or there are too many threads
            prune()
        finally:
            self._starting.release()

    def wait(self) -> None:
        """Returns when the pruning that runs now has ended."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
