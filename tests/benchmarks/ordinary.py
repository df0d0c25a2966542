"""Data as programs have it, and what is done with one item of it. Importable by name, as every peer's workers need it.

Every item is an object of its own, with values of its own: pickle sends what recurs in a chunk only once, and nobody's data is
sixty thousand times the same. What the functions compute is little, because what is measured is the way there and back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, TypeAlias
from uuid import UUID

_MANY = 60_000
_FEWER = 20_000  # of what takes several microseconds to pickle
_BLOBS = 10_000
_BLOB_BYTES = 10 << 10
_SERIES = 2_000
_SERIES_LENGTH = 100
_TEXT_LENGTH = 1 << 10

Record: TypeAlias = dict[str, Any]
Values: TypeAlias = tuple[datetime, Decimal, UUID, PurePosixPath]


@dataclass
class Order:
    number: int
    customer: str
    quantity: int
    price: float


@dataclass
class Invoice:
    order: int
    addressee: str
    total: float


def records() -> list[Record]:
    return [_record(number) for number in range(_MANY)]


def json_lines() -> list[str]:
    """About 150 letters each."""
    return [json.dumps(_record(number)) for number in range(_MANY)]


def orders() -> list[Order]:
    return [Order(number, f"customer {number}", number % 9, number / 7) for number in range(_MANY)]


def texts() -> list[str]:
    return [f"{number:08} some words ".ljust(_TEXT_LENGTH, "x") for number in range(_MANY)]


def tuples() -> list[tuple[int, str, float, float]]:
    return [(number, f"point {number}", number / 3, number / 7) for number in range(_MANY)]


def values() -> list[Values]:
    noon = datetime(2026, 1, 1, 12)
    return [
        (noon + timedelta(minutes=number), Decimal(number) / 8, UUID(int=number), PurePosixPath("data", f"{number}.csv"))
        for number in range(_FEWER)
    ]


def blob_numbers() -> list[int]:
    return list(range(_BLOBS))


def arrays() -> list[Any]:
    import numpy

    return [numpy.full(_BLOB_BYTES // 8, float(number)) for number in range(_BLOBS)]


def series() -> list[Any]:
    import numpy
    import pandas

    return [pandas.Series(numpy.full(_SERIES_LENGTH, float(number))) for number in range(_SERIES)]


def summarize(record: Record) -> Record:
    return {"id": record["id"], "total": sum(record["amounts"]), "tags": len(record["tags"])}


def invoice(order: Order) -> Invoice:
    return Invoice(order.number, order.customer.title(), order.quantity * order.price)


def add_up(point: tuple[int, str, float, float]) -> tuple[int, float]:
    number, _, x, y = point
    return number, x + y


def advance(values: Values) -> Values:
    when, amount, key, path = values
    return when + timedelta(days=1), amount + 1, key, path.with_suffix(".txt")


def blob(number: int) -> bytes:
    return number.to_bytes(8, "big") * (_BLOB_BYTES // 8)


def double(numbers: Any) -> Any:
    """Of an array or a series."""
    return numbers * 2


def _record(number: int) -> Record:
    return {
        "id": number,
        "name": f"customer {number}",
        "tags": [f"tag {number % 50}", f"tag {number % 70}", f"region {number % 9}"],
        "amounts": [number + 0.25, number + 0.5, number / 8, number / 16],
        "active": number % 2 == 0,
    }
