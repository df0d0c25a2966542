"""From standings to one SVG: a panel for each case, a bar for each contender, on a logarithmic scale of ratios.

Bars begin at 1.0, which is what the case compares with; to the left is better. Medians and ratios stand beside the bars, so
that there is no axis to read them from. The same standings give the same file, byte for byte.

The only module that imports matplotlib.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from tests.benchmarks.frame import Case
from tests.benchmarks.report import Report, Standing
from tests.benchmarks.table import describe_figure, describe_ratio, describe_target

# In inches
_COLUMNS = 2
_COLUMN_WIDTH = 5.3
_NAMES_WIDTH = 2.15
_BARS_WIDTH = 1.75
_ROW_HEIGHT = 0.185
_HEADING_HEIGHT = 0.52
_GAP_HEIGHT = 0.2
_LEGEND_HEIGHT = 0.35
_CAPTION_LINE_HEIGHT = 0.16
_CAPTION_LETTERS = 180  # in a line

_MARGIN = 0.15
_LETTER_WIDTH = 0.063

_NARROWEST = 2.0  # the scale goes at least from 1 / 2.0 to 2.0, so that small differences look small
_COLOURS = {"asyncpar": "#0b6e99", "missed": "#d1495b", "peer": "#a9b1b8", "yardstick": "#dde1e4"}
_LEGEND = {"asyncpar": "asyncpar", "missed": "asyncpar, target missed", "peer": "peer", "yardstick": "yardstick"}
_SCALE_NOTE = "logarithmic bars, from 1.0; left is better; median and ratio beside them"
_INK = "#22292f"
_FAINT = "#6b757d"
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "asyncpar",
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "font.size": 8,
    "text.color": _INK,
}


def draw(reports: list[Report], caption: list[str], file: Path) -> None:
    """Writes the plot to `file`."""
    lines = wrap("; ".join(caption), _CAPTION_LETTERS)
    columns, panels_height = _arrange(reports)
    foot = _CAPTION_LINE_HEIGHT * (len(lines) + 1)
    height = _LEGEND_HEIGHT + panels_height + foot
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_COLUMNS * _COLUMN_WIDTH, height))
        FigureCanvasSVG(figure)
        _draw_legend(figure, height)
        for column, placed in enumerate(columns):
            for top, report in placed:
                _draw_panel(figure, report, column * _COLUMN_WIDTH, height - _LEGEND_HEIGHT - top)
        figure.text(
            _MARGIN / (_COLUMNS * _COLUMN_WIDTH), foot / height, "\n".join(lines), va="top", color=_FAINT, linespacing=1.4
        )
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})


def _arrange(reports: list[Report]) -> tuple[list[list[tuple[float, Report]]], float]:
    """For each column its panels with the distance of their tops from the top, and the height of the longest."""
    columns: list[list[tuple[float, Report]]] = [[] for _ in range(_COLUMNS)]
    heights = [0.0] * _COLUMNS
    for report in reports:
        shortest = heights.index(min(heights))
        columns[shortest].append((heights[shortest], report))
        heights[shortest] += _HEADING_HEIGHT + len(report.standings) * _ROW_HEIGHT + _GAP_HEIGHT
    return columns, max(heights)


def _draw_legend(figure: Figure, height: float) -> None:
    width = _COLUMNS * _COLUMN_WIDTH
    top = 1 - 0.12 / height
    at = _MARGIN
    for role, name in _LEGEND.items():
        figure.text(at / width, top, "\u25a0", va="top", color=_COLOURS[role])
        figure.text((at + 0.14) / width, top, name, va="top")
        at += 0.45 + _LETTER_WIDTH * len(name)
    figure.text(1 - _MARGIN / width, top, _SCALE_NOTE, va="top", ha="right", color=_FAINT)


def _draw_panel(figure: Figure, report: Report, left: float, top: float) -> None:
    """A heading and the bars below it; `left` and `top` in inches from the figure's lower left corner."""
    width, height = figure.get_size_inches()
    figure.text((left + _MARGIN) / width, top / height, report.case.title, va="top", weight="bold")
    figure.text((left + _MARGIN) / width, (top - 0.18) / height, _explain(report.case), va="top", color=_FAINT)
    bars_height = len(report.standings) * _ROW_HEIGHT
    bottom = top - _HEADING_HEIGHT + 0.1 - bars_height
    box = (left + _NAMES_WIDTH) / width, bottom / height, _BARS_WIDTH / width, bars_height / height
    axes = figure.add_axes(box)
    _prepare(axes, report)
    for row, standing in enumerate(report.standings):
        _draw_standing(axes, report.case, standing, row)


def _prepare(axes: Axes, report: Report) -> None:
    """The scale, the line at 1.0 and the names."""
    ratios = [standing.ratio for standing in report.standings if standing.ratio]  # nothing at all has no place on this scale
    axes.set_xscale("log")
    axes.set_xlim(min([*ratios, 1 / _NARROWEST]), max([*ratios, _NARROWEST]))
    axes.set_ylim(len(report.standings) - 0.5, -0.5)
    axes.set_yticks(range(len(report.standings)), [standing.contender.name for standing in report.standings])
    axes.tick_params(left=False, bottom=False, which="both", labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.axvline(1.0, color=_FAINT, linewidth=0.8)


def _draw_standing(axes: Axes, case: Case, standing: Standing, row: int) -> None:
    is_ours = standing.contender.role == "asyncpar"
    weight = "bold" if is_ours else "normal"
    if standing.ratio:
        colour = _COLOURS["missed" if standing.missed else standing.contender.role]
        axes.barh(row, standing.ratio - 1, left=1.0, height=0.66, color=colour, zorder=3)
    axes.get_yticklabels()[row].set_fontweight(weight)
    for text, at in ((describe_figure(standing.figure, case.unit), 1.36), (describe_ratio(standing.ratio), 1.68)):
        axes.text(at, row, text, ha="right", va="center", weight=weight, transform=axes.get_yaxis_transform())


def _explain(case: Case) -> str:
    """The name of the case, and what 1.0 is in it."""
    targets = [target for contender in case.contenders for target in contender.targets]
    compared_with = case.reference or next((describe_target(target, case).lstrip("≤ ") for target in targets), "")
    return f"{case.name}; 1.0 is {compared_with}"
