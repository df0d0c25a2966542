"""Reports while a call goes on: joblib's lines, a method to override, a bar, or a function of the user's."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from asyncpar import Executor, Parallel, Statistics, delayed, pmap
from asyncpar._sync.reporting import is_due, progress_line
from tests.functions import double

PREAMBLE = r"\[Parallel\(n_jobs=2\)\]: Using backend process with 2 concurrent workers\."
SOME = r"\[Parallel\(n_jobs=2\)\]: Done +\d+ tasks      \| elapsed: +\d+\.\ds"
SOME_OF = r"\[Parallel\(n_jobs=2\)\]: Done +\d+ out of +\d+ \| elapsed: +\d+\.\ds remaining: +\d+\.\ds"
FINISHED = r"\[Parallel\(n_jobs=2\)\]: Done +12 out of +12 \| elapsed: +\d+\.\ds finished"


def calls(count: int = 12) -> Any:
    return (delayed(double)(x) for x in range(count))


def test_silence_is_the_default(capfd: pytest.CaptureFixture[str]) -> None:
    Parallel(n_jobs=2)(calls())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("verbose", "to_stdout"), [(1, False), (10, False), (49, False), (50, True), (100, True)])
def test_lines_go_to_stderr_and_above_fifty_to_stdout(
    capsys: pytest.CaptureFixture[str], verbose: int, to_stdout: bool
) -> None:
    Parallel(n_jobs=2, backend="process", verbose=verbose)(calls())
    out, err = capsys.readouterr()
    lines = (out if to_stdout else err).splitlines()
    assert (err if to_stdout else out) == ""
    assert re.fullmatch(PREAMBLE, lines[0])
    assert re.fullmatch(FINISHED, lines[-1])
    assert all(re.fullmatch(f"{SOME}|{SOME_OF}", line) for line in lines[1:-1])


def test_each_batch_is_reported_above_ten(capsys: pytest.CaptureFixture[str]) -> None:
    Parallel(n_jobs=2, verbose=11, batch_size=1)(calls())
    *each, last = capsys.readouterr().err.splitlines()[1:]
    assert [int(re.findall(r"Done +(\d+)", line)[0]) for line in each][:11] == list(range(1, 12))
    assert re.fullmatch(FINISHED, last)


@pytest.mark.parametrize("return_as", ["list", "generator"])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_lines_come_with_one_worker_and_from_generators_too(
    capsys: pytest.CaptureFixture[str], n_jobs: int, return_as: Any
) -> None:
    list(Parallel(n_jobs=n_jobs, return_as=return_as, verbose=11)(calls()))
    err = capsys.readouterr().err
    assert (f"[Parallel(n_jobs={n_jobs})]: Using backend" in err) == (n_jobs > 1)
    assert "Done  12 out of  12" in err


@pytest.mark.parametrize(
    ("verbose", "told"),
    [(0, []), (1, [49]), (5, [17, 71]), (10, [1, 4, 7, 12, 17, 24, 31, 40, 49, 60, 71, 84, 97]), (11, range(1, 100))],
)
def test_lines_become_fewer_below_ten(verbose: int, told: Sequence[int]) -> None:
    assert [report for report in range(1, 100) if is_due(report, report, None, verbose)] == list(told)


def test_a_line_says_how_far_the_call_is() -> None:
    assert progress_line(4, None, 0.0) == "Done   4 tasks      | elapsed:    0.0s"
    assert progress_line(10, 12, 0.2) == "Done  10 out of  12 | elapsed:    0.2s remaining:    0.0s"
    assert progress_line(12, 12, 90, finished=True) == "Done  12 out of  12 | elapsed:  1.5min finished"


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_print_progress_may_be_overridden(n_jobs: int) -> None:
    seen: list[tuple[int, int]] = []

    class Watched(Parallel[Any]):
        def print_progress(self) -> None:
            seen.append((self.n_completed_tasks, self.n_dispatched_tasks))

    assert Watched(n_jobs=n_jobs)(calls()) == [2 * x for x in range(12)]
    assert seen[-1] == (12, 12)
    assert seen == sorted(seen)
    assert all(completed <= dispatched for completed, dispatched in seen)


def test_an_overriding_print_progress_may_call_the_one_that_prints(capsys: pytest.CaptureFixture[str]) -> None:
    class Louder(Parallel[Any]):
        def print_progress(self) -> None:
            super().print_progress()

    Louder(n_jobs=2, verbose=11, batch_size=1)(calls())
    err = capsys.readouterr().err
    assert "Done   1 tasks" in err
    assert "Done  12 out of  12" in err


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_print_progress_may_be_set_on_an_object_or_on_the_class(monkeypatch: pytest.MonkeyPatch, n_jobs: int) -> None:
    told: list[str] = []
    parallel = Parallel(n_jobs=n_jobs)
    parallel.print_progress = lambda: told.append("object")  # type: ignore[method-assign]
    parallel(calls())
    monkeypatch.setattr(Parallel, "print_progress", lambda parallel: told.append("class"))
    Parallel(n_jobs=n_jobs)(calls())
    assert {"object", "class"} == set(told)


@pytest.mark.parametrize("name", ["_total", "_progress", "_meter", "_finished", "_print", "_reports", "_start_time"])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_subclass_may_keep_what_it_likes_under_names_that_others_use(name: str, n_jobs: int) -> None:
    class Bar(Parallel[Any]):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            setattr(self, name, "mine")

        def print_progress(self) -> None:
            assert getattr(self, name) == "mine"

    assert Bar(n_jobs=n_jobs)(calls()) == [2 * x for x in range(12)]


@pytest.mark.parametrize("verbose", [0, 1])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_generator_counts_what_it_hands_out(n_jobs: int, verbose: int) -> None:
    parallel = Parallel(n_jobs=n_jobs, return_as="generator", verbose=verbose)
    for handed, _ in enumerate(parallel(calls()), 1):
        if not verbose:  # else another thread counts what is reported
            assert handed <= parallel.n_completed_tasks <= parallel.n_dispatched_tasks
    assert (parallel.n_completed_tasks, parallel.n_dispatched_tasks) == (12, 12)


def test_calls_of_one_parallel_in_several_threads_tell_their_own_progress() -> None:
    told: list[tuple[str, int]] = []
    ended = threading.Event()
    parallel = Parallel(
        n_jobs=2,
        backend="thread",
        batch_size=1,
        progress=lambda statistics: told.append((threading.current_thread().name, statistics.finished)),
    )

    def caller(waits: bool) -> None:
        parallel([delayed(ended.wait if waits else bool)() for _ in range(4)])

    longer = threading.Thread(target=caller, args=(True,), name="longer")
    shorter = threading.Thread(target=caller, args=(False,), name="shorter")
    longer.start()
    shorter.start()
    shorter.join()
    ended.set()
    longer.join()
    assert max(finished for thread, finished in told if thread == "longer") == 4
    assert max(finished for thread, finished in told if thread == "shorter") == 4


def test_what_print_progress_raises_ends_the_call() -> None:
    class Broken(Parallel[Any]):
        def print_progress(self) -> None:
            raise LookupError("no terminal")

    for return_as in ("list", "generator"):
        with pytest.raises(LookupError, match="no terminal"):
            list(Broken(n_jobs=2, return_as=return_as)(calls(1000)))


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_a_function_gets_statistics(n_jobs: int, return_as: Any) -> None:
    snapshots: list[Statistics] = []
    list(Parallel(n_jobs=n_jobs, return_as=return_as, progress=snapshots.append)(calls()))
    assert snapshots[-1].finished == 12
    assert snapshots[-1].failed == 0


BAR = """
from asyncpar import Parallel, delayed
Parallel(n_jobs=2, progress=True)([delayed(abs)(x) for x in range(12)])
"""


def test_a_bar_shows_how_far_the_call_is() -> None:
    done = subprocess.run([sys.executable, "-c", BAR], capture_output=True, text=True, timeout=60, check=True)
    assert "12/12" in done.stderr


def test_without_tqdm_a_message_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    Parallel(n_jobs=2, progress=True)(calls())
    expected = "asyncpar: a progress bar needs tqdm: pip install 'asyncpar[progress]'\nasyncpar: 12 calls finished\n"
    assert capsys.readouterr().err == expected


async def test_a_map_tells_its_progress_too(executor: Executor) -> None:
    snapshots: list[Statistics] = []
    assert await pmap(double, range(100), executor=executor, progress=snapshots.append) == [2 * x for x in range(100)]
    assert snapshots[-1].finished == 100
    assert [snapshot.finished for snapshot in snapshots] == sorted(snapshot.finished for snapshot in snapshots)


async def test_what_the_progress_function_of_a_map_raises_ends_the_map(executor: Executor) -> None:
    def broken(statistics: Statistics) -> None:
        raise LookupError("no terminal")

    with pytest.raises(LookupError, match="no terminal"):
        await pmap(double, range(100), executor=executor, progress=broken)
    assert await pmap(double, [1], executor=executor) == [2]


def test_what_cannot_show_progress_is_refused() -> None:
    with pytest.raises(TypeError, match="progress must be True, False, None or something to call"):
        pmap(double, [1], progress=5)  # type: ignore[call-overload]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_program_without_a_console_may_be_verbose(monkeypatch: pytest.MonkeyPatch, n_jobs: int) -> None:
    monkeypatch.setattr("sys.stderr", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert Parallel(n_jobs=n_jobs, backend="threading", verbose=20, progress=True)(calls()) == [2 * x for x in range(12)]


def test_outside_of_a_call_there_is_no_progress_to_print(capsys: pytest.CaptureFixture[str]) -> None:
    Parallel(n_jobs=2, verbose=20).print_progress()
    assert capsys.readouterr() == ("", "")
