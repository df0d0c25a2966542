"""From readings to standings: medians, ratios, and whether targets are met. Pure.

A ratio is the median over the rounds of the ratio within a round, and a target is met if it is in the median of the rounds:
what slows the machine down for one round slows down both sides of that round's comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from tests.benchmarks.frame import BEST_PEER, Case, Contender, Reading, Target
from tests.benchmarks.rounds import Readings


@dataclass(frozen=True, slots=True)
class Standing:
    """How one contender did.

    Attributes:
        figure: the median, in the case's base unit; None if it could not be measured.
        ratio: to what the case compares with; None if that could not be measured.
        missed: those of its targets that it did not meet.
        lost_to: the peers that were better, if the contender is asyncpar.
    """

    contender: Contender
    figure: float | None = None
    ratio: float | None = None
    missed: tuple[Target, ...] = ()
    lost_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    case: Case
    standings: tuple[Standing, ...]


def report_case(case: Case, readings: Readings) -> Report:
    """A standing for each contender of the case."""
    return Report(case, tuple(_stand(case, contender, readings) for contender in case.contenders))


def _stand(case: Case, contender: Contender, readings: Readings) -> Standing:
    if contender.name not in readings:
        return Standing(contender, missed=contender.targets)
    own = readings[contender.name]
    ratios = _ratios(case, own, readings)
    return Standing(
        contender,
        figure=median(reading.figure for reading in own),
        ratio=median(ratios) if ratios else None,
        missed=tuple(target for target in contender.targets if not _is_met(target, case, own, readings)),
        lost_to=_better_peers(case, own, readings) if contender.role == "asyncpar" else (),
    )


def _ratios(case: Case, own: list[Reading], readings: Readings) -> list[float]:
    """Each round's figure as a multiple of what the case compares with; empty if that is missing."""
    if case.reference is None:
        targets = [target for contender in case.contenders for target in contender.targets]
        references = [target.plus for target in targets[:1] for _ in own]
    else:
        references = _references(case, case.reference, own, readings)
    return [reading.figure / reference for reading, reference in zip(own, references, strict=True)] if references else []


def _references(case: Case, name: str, own: list[Reading], readings: Readings) -> list[float]:
    """Round by round, what the contender of that name measured or, if there is none, the ideals that came along."""
    if name == BEST_PEER:
        rounds = zip(*(readings[peer] for peer in _measured_peers(case, readings)), strict=True)
        return [min(reading.figure for reading in one_round) for one_round in rounds]
    if name in readings:
        return [reading.figure for reading in readings[name]]
    return [reading.ideal for reading in own if reading.ideal is not None]


def _is_met(target: Target, case: Case, own: list[Reading], readings: Readings) -> bool:
    compared_with = target.of or case.reference
    if target.times and compared_with is not None:
        limits = [target.limit(reference) for reference in _references(case, compared_with, own, readings)]
    else:
        limits = [target.plus for _ in own]
    excess = [reading.figure - limit for reading, limit in zip(own, limits, strict=False)]
    return bool(excess) and median(excess) <= 0


def _better_peers(case: Case, own: list[Reading], readings: Readings) -> tuple[str, ...]:
    """The peers whose ratios, or figures if there are none, are lower in the median of the rounds."""
    mine = _comparable(case, own, readings)
    return tuple(
        name
        for name in _measured_peers(case, readings)
        if median(theirs - ours for theirs, ours in zip(_comparable(case, readings[name], readings), mine, strict=True)) < 0
    )


def _measured_peers(case: Case, readings: Readings) -> list[str]:
    return [peer.name for peer in case.contenders if peer.role == "peer" and peer.name in readings]


def _comparable(case: Case, own: list[Reading], readings: Readings) -> list[float]:
    return _ratios(case, own, readings) or [reading.figure for reading in own]
