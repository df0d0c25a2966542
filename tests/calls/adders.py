"""Functions and methods that add, and an error of the user's own."""

from __future__ import annotations

from typing import Any

from asyncpar import CallTimeoutError


class Overtime(CallTimeoutError):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raise_overtime(_: object) -> None:
    raise Overtime("too late")


def adder(amount: int) -> Any:
    return lambda x: x + amount


class Adder:
    def __init__(self, amount: int) -> None:
        self.amount = amount

    def add(self, x: int) -> int:
        return x + self.amount
