"""Places of an executor, taken by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from asyncpar import Executor
from asyncpar._contract.answers import read
from asyncpar._contract.batches import BatchDone
from asyncpar._contract.executor import Hints, Parcel, Place, Program, Session


def open_session(executor: Executor, fn: Callable[..., Any] = abs, concurrency: int = 0) -> Session:
    return executor.open(Program(fn, concurrency), Hints())


@asynccontextmanager
async def held_place(executor: Executor) -> AsyncIterator[Place]:
    """A place that nobody else gets meanwhile."""
    session = open_session(executor)
    place = await session.lease()
    try:
        yield place
    finally:
        session.release(place)
        session.close()


async def run_parcel(session: Session, parcel: Parcel) -> BatchDone:
    place = await session.lease()
    try:
        answer = await place.run(parcel)
    finally:
        session.release(place)
    return await read(answer)
