"""The kit: tests that every executor must pass. The files beside this one have them, by what they are about."""

from __future__ import annotations

from asyncpar.testing.ends import Ends
from asyncpar.testing.errors import Errors
from asyncpar.testing.results import Results
from asyncpar.testing.sharing import Sharing


class ExecutorContract(Results, Errors, Ends, Sharing):
    """A subclass named `Test…` tests the executors that its `make_executor` makes.

    A subclass must say:

    - `make_executor()`: a new executor, with two workers if it can have as many. It is called in the event loop where the
      executor is used.

    It may say:

    - `change_places(executor, places)`: gives the executor another number of places, if that is possible. It is told so by
      `executor.watch`.
    - `holds_event_loop = True`: calls run in the event loop's own thread, so that nothing else can happen meanwhile.
    - `patience`: seconds that a test may take. It is far more than any needs, for a test that waits for ever.
    - a fixture `anyio_backend`, where an executor is not for all event loops.

    Tests make their executors themselves, as `async with self.executor() as executor`.
    """
