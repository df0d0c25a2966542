"""From standings to the Markdown table, and figures, ratios and targets as text."""

from __future__ import annotations

from typing import NamedTuple

from tests.benchmarks.frame import Case, Target, Unit
from tests.benchmarks.report import Report, Standing


class Row(NamedTuple):
    """A line of the table, as it is printed."""

    case: str
    contender: str
    median: str
    ratio: str
    target: str
    met: str


_TITLES = Row(*Row._fields)
_SCALES: dict[Unit, tuple[tuple[float, str], ...]] = {
    "seconds": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "bytes": ((2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
}


def to_markdown(reports: list[Report]) -> str:
    """An aligned Markdown table; a case is named in its first row."""
    rows = [
        _row(report.case, standing, first=not place) for report in reports for place, standing in enumerate(report.standings)
    ]
    table = [_TITLES, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(_TITLES))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in table]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def describe_figure(figure: float | None, unit: Unit) -> str:
    """Three digits and a unit in which they are easy to read."""
    if figure is None:
        return "failed"
    scale, name = next(((scale, name) for scale, name in _SCALES[unit] if figure >= scale), _SCALES[unit][-1])
    return f"{figure / scale:.3g} {name}" if figure < 1000 * scale else f"{figure / scale:.0f} {name}"


def describe_ratio(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def describe_target(target: Target, case: Case) -> str:
    compared_with = target.of or case.reference
    terms = []
    if target.times == 1:
        terms.append(f"{compared_with}")
    elif target.times > 1:
        terms.append(f"{target.times:g} x {compared_with}")
    elif target.times:
        terms.append(f"{compared_with} / {1 / target.times:g}")
    if target.plus:
        terms.append(describe_figure(target.plus, case.unit))
    return f"≤ {' + '.join(terms)}"


def _row(case: Case, standing: Standing, *, first: bool) -> Row:
    return Row(
        case.name if first else "",
        standing.contender.name,
        describe_figure(standing.figure, case.unit),
        describe_ratio(standing.ratio),
        "; ".join(describe_target(target, case) for target in standing.contender.targets),
        _verdict(case, standing),
    )


def _verdict(case: Case, standing: Standing) -> str:
    verdicts = []
    if standing.missed:
        which = "; ".join(describe_target(target, case) for target in standing.missed)
        verdicts.append(f"no ({which})" if len(standing.contender.targets) > 1 else "no")
    elif standing.contender.targets:
        verdicts.append("yes")
    if standing.lost_to:
        verdicts.append(f"lost to {' and '.join(standing.lost_to)}")
    return ", ".join(verdicts)
