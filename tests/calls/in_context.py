"""Calls that look at context variables, and change them."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import anyio.lowlevel

from asyncpar import current_call

request: ContextVar[Any] = ContextVar("request")
tenant: ContextVar[Any] = ContextVar("tenant", default="nobody")
locale: ContextVar[Any] = ContextVar("locale")  # which nobody carries
VARIABLES = (request, tenant)
UNSET = "is not set"


def look(_: object = None) -> tuple[Any, Any]:
    return request.get(UNSET), tenant.get()


def look_and_change(item: object) -> tuple[Any, Any]:
    seen = look()
    change(item)
    return seen


def change(value: object) -> None:
    request.set(value)
    tenant.set(value)
    locale.set(value)


def append_to_request(item: object) -> Any:
    request.get().append(item)
    return request.get()


async def append_to_request_soon(item: object) -> Any:
    await anyio.lowlevel.checkpoint()
    return append_to_request(item)


def look_and_count(_: object) -> tuple[Any, int]:
    return request.get(), current_call().index


def look_everywhere(item: object) -> list[Any]:
    seen = [*look(), locale.get(UNSET)]
    change(item)
    return seen


async def look_and_change_soon(item: object) -> tuple[Any, Any]:
    """What other calls set meanwhile is not seen, and what this one sets stays."""
    await anyio.lowlevel.checkpoint()
    seen = look_and_change(item)
    await anyio.lowlevel.checkpoint()
    assert look() == (item, item)
    assert await asyncio.create_task(look_soon()) == (item, item)
    return seen


async def look_and_set_soon(item: object) -> Any:
    """Looks when other calls have set the variable, and sees only what it has set itself from then on."""
    await anyio.lowlevel.checkpoint()
    seen = request.get(UNSET)
    request.set(item)
    await anyio.lowlevel.checkpoint()
    assert request.get() == item
    return seen


async def look_soon(_: object = None) -> tuple[Any, Any]:
    return look()


async def raise_soon(item: object) -> None:
    await anyio.lowlevel.checkpoint()
    raise ValueError(f"{item} in {look()}")


async def sleep_if_late(item: str) -> str:
    """Catches what ends it, as far as it may."""
    try:
        await asyncio.sleep(60 if item == "late" else 0)
    except asyncio.CancelledError:
        request.set("cancelled")
        raise
    try:
        async with asyncio.timeout(0):
            await asyncio.sleep(60)
    except TimeoutError:
        return f"{item} for {request.get()}"
    raise AssertionError("unreachable: it is cancelled")


class LooksBy:
    """An object whose pickle holds a variable."""

    def __init__(self, variable: ContextVar[Any]) -> None:
        self.variable = variable

    def __call__(self, _: object) -> tuple[Any, ContextVar[Any]]:
        return self.variable.get(UNSET), self.variable
