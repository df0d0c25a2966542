"""Executors in the portal's event loop: those that all calls share, and those that a `with` keeps and closes."""

from __future__ import annotations

import queue
from collections.abc import Callable, Hashable

from asyncpar._contract.executor import Executor
from asyncpar._contract.lending import PooledExecutor
from asyncpar._platform.background import wait_through
from asyncpar._sync.backends import Backend
from asyncpar._sync.portal import Portal, Task, running_portal


class KeptExecutor:
    """An executor that outlives a call, for the calls of one `with` block."""

    def __init__(self) -> None:
        self._portal: Portal | None = None
        self._executor: Executor | None = None

    def open(self, portal: Portal, make: Callable[[], Executor]) -> Executor:
        """Called in the portal's loop."""
        if self._executor is None or self._executor.closed or self._portal is not portal:
            self._portal, self._executor = portal, make()
        return self._executor

    def close(self) -> None:
        """Closes it; returns when that is done.

        Raises:
            Exception: the error that the executor raises.
        """
        portal, executor = self._portal, self._executor
        if portal is None or executor is None or not portal.usable:
            return
        self._executor = None
        closed: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

        async def close() -> None:
            error = None
            try:
                error = await closing_error_of(executor)
            finally:
                closed.put(error)

        Task(portal, close).start()
        error = closed.get()
        if error is not None:
            raise error


def open_executor(backend: Backend, n_jobs: int, portal: Portal, kept: KeptExecutor | None) -> tuple[Executor, bool]:
    """The executor of a call with so many workers, and whether it belongs to this call. Called in the portal's loop.

    `kept`: keeps one that is not shared by all calls for the next.
    """
    if backend.given is not None:
        return backend.given, False
    assert backend.make is not None, "a backend is given or made"
    if backend.key is not None:
        executor = portal.executors.get(backend.key)
        if executor is None or executor.closed:
            executor = portal.executors[backend.key] = backend.make()
    elif kept is None:
        executor = _take_spare(portal, backend.spare_key) or backend.make()
    else:
        executor = kept.open(portal, backend.make)
    if isinstance(executor, PooledExecutor) and backend.kind != "other":
        executor.grow(n_jobs)
    return executor, backend.key is None and kept is None


def _take_spare(portal: Portal, key: Hashable | None) -> Executor | None:
    """The executor that an earlier call with this key has left."""
    if key is None or portal.spare is None or portal.spare[0] != key:
        return None
    (_, executor), portal.spare = portal.spare, None
    return None if executor.closed else executor


async def give_back(portal: Portal, backend: Backend, executor: Executor, *, failed: bool) -> Exception | None:
    """The call that owns the executor has ended. It is kept for another call, or closed; returns the error of closing.

    One is kept at a time, so the one before is closed.
    """
    if failed or backend.spare_key is None:
        return await closing_error_of(executor)
    before, portal.spare = portal.spare, (backend.spare_key, executor)
    return None if before is None else await closing_error_of(before[1])


def close_shared_executors() -> None:
    """Ends all workers that calls share or have left; returns when they have ended. The next call starts others."""
    portal = running_portal()
    if portal is None:
        return
    closed: queue.SimpleQueue[None] = queue.SimpleQueue()

    async def close() -> None:
        try:
            executors = list(portal.executors.values())
            portal.executors.clear()
            spare, portal.spare = portal.spare, None
            for executor in [*executors, *([] if spare is None else [spare[1]])]:
                await closing_error_of(executor)
        finally:
            closed.put(None)

    Task(portal, close).start()
    closed.get()


async def closing_error_of(executor: Executor) -> Exception | None:
    """Closes the executor, and returns the error that it raises."""
    try:
        await wait_through(executor.aclose)
    except Exception as error:
        return error
    return None
