"""Functions of every kind; all add three to a number."""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np

from tests.functions import add


class Adder:
    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __call__(self, x: int) -> int:
        return x + self.amount

    def method(self, x: int) -> int:
        return x + self.amount


def closure(amount: int) -> Any:
    return lambda x: x + amount


FUNCTIONS = {
    "a lambda": lambda x: x + 3,
    "a closure": closure(3),
    "a partial": functools.partial(add, 3),
    "a callable object": Adder(3),
    "a method": Adder(3).method,
    "a ufunc's method": functools.partial(np.add, 3),
    "an operator": functools.partial(operator.add, 3),
}
