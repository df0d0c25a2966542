"""Calls that make, change, keep and return arrays."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Frame:
    name: str
    values: np.ndarray[Any, Any]
    more: dict[str, Any]


def large(seed: int = 0, size: int = 300_000) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).random(size)


def total(array: np.ndarray[Any, Any], index: int) -> float:
    return float(array.sum()) + index


def write(array: np.ndarray[Any, Any]) -> float:
    before = float(array[0])
    array[0] = before + 1
    return before


def write_one(array: Any) -> float:
    array[0] = 1.0
    return float(array[0])


def add_one(row: Any) -> float:
    row += 1
    return float(row[0])


def total_of_two(one: Any, other: Any) -> float:
    return float(one.sum() + other.sum())


class HasAGap:
    """Pickles as a buffer that does not lie in one piece."""

    def __init__(self, size: int) -> None:
        self.view = memoryview(bytes(size))[::2]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return bytes, (pickle.PickleBuffer(self.view),)


kept: list[Any] = []


def keep(array: Any) -> None:
    kept.append(array[5:1000])


def keep_nothing(array: Any) -> float:
    return float(array.sum())


def what_was_kept(_: object) -> Any:
    return kept[0]


def where(array: Any) -> tuple[str, str, float]:
    return type(array).__name__, array.mode, float(array.sum())


def kill_some(array: Any, index: int) -> Any:
    if index == 3:
        os._exit(9)
    return array
