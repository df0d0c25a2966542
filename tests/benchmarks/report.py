"""From readings to the table: medians, ratios, and whether a target is met. Pure.

A ratio is the median over the rounds of the ratio within a round, and a target is met if it is in the median of the rounds:
what slows the machine down for one round slows down both sides of that round's comparison.
"""

from __future__ import annotations

from statistics import median
from typing import NamedTuple

from tests.benchmarks.frame import Case, Contender, Target, Unit
from tests.benchmarks.rounds import Readings

_NOTHING = "-"


class Row(NamedTuple):
    """A line of the table, as it is printed."""

    case: str
    contender: str
    median: str
    ratio: str
    target: str
    met: str


_TITLES = Row("case", "contender", "median", "ratio", "target", "met")
_SCALES: dict[Unit, tuple[tuple[float, str], ...]] = {
    "seconds": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "bytes": ((2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
}


def report_case(case: Case, readings: Readings) -> list[Row]:
    """The rows of a case, one for each contender."""
    return [_report(case, contender, readings) for contender in case.contenders]


def to_markdown(rows: list[Row]) -> str:
    """An aligned Markdown table."""
    table = [_TITLES, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(_TITLES))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in table]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _report(case: Case, contender: Contender, readings: Readings) -> Row:
    target = _describe_target(case, contender.target)
    if contender.name not in readings:
        return Row(case.name, contender.name, "failed", _NOTHING, target, "no" if contender.target else _NOTHING)
    figures = [reading.figure for reading in readings[contender.name]]
    ratios = _ratios(case, contender, readings)
    ratio = f"{median(ratios):.2f}" if ratios else _NOTHING
    return Row(
        case.name, contender.name, _format(median(figures), case.unit), ratio, target, _verdict(case, contender, readings)
    )


def _ratios(case: Case, contender: Contender, readings: Readings) -> list[float]:
    """Each round's figure as a multiple of what it is compared with; empty if that is missing."""
    references = _references(case, contender, readings)
    own = readings[contender.name]
    return [reading.figure / reference for reading, reference in zip(own, references, strict=True)] if references else []


def _references(case: Case, contender: Contender, readings: Readings) -> list[float]:
    own = readings[contender.name]
    if case.reference is None:
        target = next((each.target for each in case.contenders if each.target is not None), None)
        return [] if target is None else [target.plus] * len(own)
    if all(reading.ideal is not None for reading in own):
        return [reading.ideal for reading in own if reading.ideal is not None]
    return [reading.figure for reading in readings.get(case.reference, [])]


def _verdict(case: Case, contender: Contender, readings: Readings) -> str:
    verdicts = []
    if contender.target is not None:
        verdicts.append("yes" if _is_met(case, contender, contender.target, readings) else "no")
    if contender.role == "asyncpar" and (better := _better_peers(case, contender, readings)):
        verdicts.append(f"lost to {' and '.join(better)}")
    return ", ".join(verdicts) or _NOTHING


def _is_met(case: Case, contender: Contender, target: Target, readings: Readings) -> bool:
    references = _references(case, contender, readings)
    figures = [reading.figure for reading in readings[contender.name]]
    excess = [figure - target.limit(reference) for figure, reference in zip(figures, references, strict=False)]
    return bool(excess) and median(excess) <= 0


def _better_peers(case: Case, contender: Contender, readings: Readings) -> list[str]:
    """The peers with the lower ratio in the median of the rounds."""
    own = _ratios(case, contender, readings)
    peers = [peer for peer in case.contenders if peer.role == "peer" and peer.name in readings]
    return [
        peer.name
        for peer in peers
        if own and median(t / o for t, o in zip(_ratios(case, peer, readings), own, strict=True)) < 1
    ]


def _describe_target(case: Case, target: Target | None) -> str:
    if target is None:
        return "for information"
    terms = []
    if target.times:
        terms.append(f"{case.reference}" if target.times == 1 else f"{target.times:g} x {case.reference}")
    if target.plus:
        terms.append(_format(target.plus, case.unit))
    return f"≤ {' + '.join(terms)}"


def _format(figure: float, unit: Unit) -> str:
    scale, name = next(((scale, name) for scale, name in _SCALES[unit] if figure >= scale), _SCALES[unit][-1])
    return f"{figure / scale:.3g} {name}" if figure < 1000 * scale else f"{figure / scale:.0f} {name}"
