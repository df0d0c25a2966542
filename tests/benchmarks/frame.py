"""What is measured: a `Case` has contenders, one of which, or an ideal, is what the others are compared with.

A contender's `measure(quick)` runs in a fresh process, once a round, and returns one figure in the case's base unit: the
median of as many repetitions as make sense, or a `Reading` that brings its own ideal along. Modules of peers are imported
inside it, so that no contender pays for another's.

    Case("one-item", "…", reference="to_process", contenders=(
        Contender("asyncpar", measure_asyncpar, "asyncpar", (Target(times=1.0),)),
        Contender("to_process", measure_to_process),
    ))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import distributions
from typing import Literal, NamedTuple, TypeAlias

Role: TypeAlias = Literal["asyncpar", "peer", "yardstick"]  # a yardstick is compared with, but nobody wins or loses to it
Unit: TypeAlias = Literal["seconds", "bytes"]

BEST_PEER = "the best peer"  # as a reference: whichever peer is best in a round


class Reading(NamedTuple):
    """One figure of one round; `ideal` where the contender measures what it is to be compared with."""

    figure: float
    ideal: float | None = None


Measure: TypeAlias = Callable[[bool], float | Reading]


@dataclass(frozen=True, slots=True)
class Target:
    """At most `times` what `of` measured, `plus` something in the case's unit.

    Attributes:
        of: a contender, or BEST_PEER. None: what the ratios of the case are to.
    """

    times: float = 0.0
    plus: float = 0.0
    of: str | None = None

    def limit(self, reference: float) -> float:
        return self.times * reference + self.plus


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    measure: Measure
    role: Role = "peer"
    targets: tuple[Target, ...] = ()


def _always_available() -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Case:
    """Some contenders doing the same.

    Attributes:
        title: what is measured, in one line.
        reference: the contender that the ratios are to, or BEST_PEER, or, if none has that name, what readings bring along
            as `ideal`. None: ratios are to the first target's limit, which then is a figure.
        unavailable: why the case cannot be measured here, or None.
    """

    name: str
    title: str
    contenders: tuple[Contender, ...]
    reference: str | None = None
    unit: Unit = "seconds"
    unavailable: Callable[[], str | None] = _always_available

    def contender(self, name: str) -> Contender:
        return next(contender for contender in self.contenders if contender.name == name)


def missing(*packages: str) -> str | None:
    """Why a case that needs these packages, by their names for pip, cannot be measured; None if they are all installed."""
    absent = [package for package in packages if not any(distributions(name=package))]
    return f"{' and '.join(absent)} must be installed" if absent else None


def scaled(repetitions: int, quick: bool) -> int:
    """The number of repetitions, or a tenth of it."""
    return max(1, repetitions // 10) if quick else repetitions
