"""What the benchmarks conclude from their readings: ratios, targets, losses, the table, and a plot that repeats itself."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.benchmarks.frame import BEST_PEER, Case, Contender, Reading, Target
from tests.benchmarks.report import Standing, report_case
from tests.benchmarks.rounds import Readings
from tests.benchmarks.table import describe_figure, to_markdown

ROOT = Path(__file__).parents[2]


def measure_nothing(quick: bool) -> float:
    raise AssertionError("a report measures nothing")


def case_of(*targets: Target, reference: str | None = "slow") -> Case:
    ours = Contender("asyncpar", measure_nothing, "asyncpar", targets)
    return Case("case", "a case", (ours, Contender("slow", measure_nothing), Contender("quick", measure_nothing)), reference)


def readings_of(**figures: list[float]) -> Readings:
    return {name: [Reading(figure) for figure in each] for name, each in figures.items()}


def standing_of(case: Case, readings: Readings) -> Standing:
    return report_case(case, readings).standings[0]


def test_a_ratio_is_the_median_of_the_ratios_within_the_rounds() -> None:
    standing = standing_of(case_of(), readings_of(asyncpar=[1.0, 20.0, 3.0], slow=[2.0, 100.0, 1.0]))
    assert (standing.figure, standing.ratio) == (3.0, 0.5)


def test_each_target_is_judged_against_what_it_names() -> None:
    absolute, against_reference, against_other = Target(plus=1.5), Target(times=1 / 1.5), Target(times=1 / 30, of="quick")
    standing = standing_of(
        case_of(absolute, against_reference, against_other), readings_of(asyncpar=[1.0], slow=[2.0], quick=[3.0])
    )
    assert standing.missed == (against_other,)


def test_a_target_may_be_a_multiple_and_something_more() -> None:
    target = Target(times=1.0, plus=0.5)
    assert standing_of(case_of(target), readings_of(asyncpar=[2.5], slow=[2.0])).missed == ()
    assert standing_of(case_of(target), readings_of(asyncpar=[2.6], slow=[2.0])).missed == (target,)


def test_a_target_is_missed_if_either_side_could_not_be_measured() -> None:
    target = Target(times=2.0)
    assert standing_of(case_of(target), readings_of(asyncpar=[1.0])).missed == (target,)
    assert standing_of(case_of(target), readings_of(slow=[1.0])).missed == (target,)


def test_a_reference_that_is_no_contender_is_the_ideal_that_a_reading_brings_along() -> None:
    standing = standing_of(case_of(Target(times=1.5), reference="the ideal"), {"asyncpar": [Reading(3.0, 2.0)]})
    assert (standing.ratio, standing.missed) == (1.5, ())


def test_the_best_peer_is_chosen_round_by_round() -> None:
    target = Target(times=1.0)
    case = case_of(target, reference=BEST_PEER)
    slower = standing_of(case, readings_of(asyncpar=[3.0, 3.0, 3.0], slow=[9.0, 2.0, 9.0], quick=[1.5, 9.0, 2.5]))
    assert (slower.ratio, slower.missed) == (1.5, (target,))
    assert standing_of(case, readings_of(asyncpar=[3.0], slow=[4.0], quick=[3.0])).missed == ()


def test_the_best_peer_is_one_of_those_that_could_be_measured() -> None:
    target = Target(times=1.0)
    case = case_of(target, reference=BEST_PEER)
    assert standing_of(case, readings_of(asyncpar=[3.0], slow=[6.0])).ratio == 0.5
    assert standing_of(case, readings_of(asyncpar=[3.0])).missed == (target,)


def test_without_a_reference_ratios_are_to_the_first_target() -> None:
    assert standing_of(case_of(Target(plus=4.0), reference=None), readings_of(asyncpar=[2.0])).ratio == 0.5


def test_every_better_peer_is_named() -> None:
    assert standing_of(case_of(), readings_of(asyncpar=[2.0], slow=[2.0], quick=[1.0])).lost_to == ("quick",)
    assert standing_of(case_of(reference=None), readings_of(asyncpar=[2.0], slow=[3.0], quick=[1.0])).lost_to == ("quick",)


def test_the_table_shows_losses_and_failures() -> None:
    case = case_of(Target(plus=1e-3), Target(times=1 / 1.5))
    table = to_markdown([report_case(case, readings_of(asyncpar=[2e-3], slow=[4e-3]))])
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]] == [
        ["case", "asyncpar", "2 ms", "0.50", "≤ 1 ms; ≤ slow / 1.5", "no (≤ 1 ms)"],
        ["", "slow", "4 ms", "1.00", "", ""],
        ["", "quick", "failed", "", "", ""],
    ]
    assert "lost to quick" in to_markdown([report_case(case, readings_of(asyncpar=[2e-3], slow=[4e-3], quick=[1e-3]))])


def test_figures_have_three_digits_and_a_unit() -> None:
    assert [describe_figure(figure, "seconds") for figure in (1.0, 0.0123456, 61e-9)] == ["1 s", "12.3 ms", "61 ns"]
    assert describe_figure(20 * 2**20, "bytes") == "20 MiB"


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is part of the `bench` extra")
def test_the_same_standings_give_the_same_plot(tmp_path: Path) -> None:
    plots = [tmp_path / "first.svg", tmp_path / "second.svg"]
    for plot in plots:  # each in a process of its own, as hashes differ from process to process, and fonts stay open in it
        command = [sys.executable, "-c", f"from {__name__} import draw_example; draw_example({str(plot)!r})"]
        subprocess.run(command, check=True, cwd=ROOT)
    first, second = (plot.read_text(encoding="utf-8") for plot in plots)
    assert first == second
    assert all(shown in first for shown in ("a machine", "asyncpar", "1 s", "0.50"))


def draw_example(file: str) -> None:
    from tests.benchmarks.plot import draw

    draw([report_case(case_of(Target(times=1.0)), readings_of(asyncpar=[1.0], slow=[2.0]))], ["a machine"], Path(file))
