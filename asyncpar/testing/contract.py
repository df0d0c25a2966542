"""The kit: tests that every executor must pass. The files beside this one have them, one file for each subject."""

from __future__ import annotations

from asyncpar.testing.ends import Ends
from asyncpar.testing.errors import Errors
from asyncpar.testing.results import Results
from asyncpar.testing.sharing import Sharing


class ExecutorContract(Results, Errors, Ends, Sharing):
    """A subclass named `Test…` tests the executors that its `make_executor` makes.

    A subclass must say:

    - `make_executor()`: returns a new executor, with two workers if it can have two. It is called in the event loop where the
        executor is used.

    It may say:

    - `change_places(executor, places)`: gives the executor another number of places, if that is possible. `executor.watch` must
        report the change.
    - `holds_event_loop = True`: calls run in the event loop's own thread, so nothing else can happen meanwhile.
    - `patience`: seconds that a test may take. They end a test that waits forever, and are far more than any test needs.
    - a fixture `anyio_backend`, if an executor is not for all event loops.

    Tests make their executors themselves, as `async with self.executor() as executor`.
    """
