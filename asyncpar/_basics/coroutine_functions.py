"""Tells coroutine functions from plain ones, which decides where and how a function is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType
from typing import Any


def is_coroutine_function(fn: Callable[..., Any]) -> bool:
    """Whether calling it makes a coroutine; for a callable object, whether its `__call__` is a coroutine function."""
    if isinstance(fn, BuiltinFunctionType):  # a microsecond, not ten
        return False
    if isinstance(fn, FunctionType) and not fn.__dict__:  # nothing marks it, so its code says it all: 2 µs less
        return bool(fn.__code__.co_flags & inspect.CO_COROUTINE)
    return inspect.iscoroutinefunction(fn) or (
        not isinstance(fn, FunctionType) and inspect.iscoroutinefunction(type(fn).__call__)
    )
