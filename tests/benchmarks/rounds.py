"""Measures the contenders of a case in turn, round by round, each time in a fresh process.

Whatever disturbs the machine for a while then disturbs all contenders, and none meets what another left behind: warm
pools, imported modules, a grown heap. Bytecode is cached in a temporary directory, so that imports cost what they cost in an
installed package and the tree stays clean; one unmeasured round fills it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TypeAlias

from tests.benchmarks.frame import Case, Contender, Reading

Readings: TypeAlias = dict[str, list[Reading]]  # {contender: one for each round}; a contender that failed is missing

_ROOT = Path(__file__).resolve().parents[2]
_PATIENCE_SECONDS = 180.0  # the slowest contender takes a sixth of that


class MeasurementError(Exception):
    """The process that should have measured did not; the message ends with what it said last."""


def measure_rounds(case: Case, rounds: int, *, quick: bool, failures: list[str]) -> Readings:
    """All readings of a case. What fails is not measured again, and is described in `failures`."""
    readings: Readings = {contender.name: [] for contender in case.contenders}
    with tempfile.TemporaryDirectory(prefix="asyncpar-benchmarks-") as bytecode:
        environment = _environment(bytecode)
        for round_number in range(rounds + 1):
            warming_up = round_number == 0
            _say(f"{case.name}: {'warming up' if warming_up else f'round {round_number} of {rounds}'}")
            for contender in case.contenders:
                if contender.name not in readings:
                    continue
                try:
                    reading = _measure(case, contender, quick or warming_up, environment)
                except MeasurementError as error:
                    failures.append(f"{case.name}, {contender.name} could not be measured: {error}")
                    del readings[contender.name]
                    continue
                if not warming_up:
                    readings[contender.name].append(reading)
    return readings


def _measure(case: Case, contender: Contender, quick: bool, environment: dict[str, str]) -> Reading:
    command = [sys.executable, "-m", "tests.benchmarks.measure", case.name, contender.name]
    if quick:
        command.append("--quick")
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as complaints:
        # Files, not pipes: the end of a pipe would wait for whatever a peer leaves running
        process = subprocess.Popen(
            command, cwd=_ROOT, env=environment, stdout=output, stderr=complaints, start_new_session=True
        )
        try:
            status = process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise MeasurementError(f"no result after {_PATIENCE_SECONDS:.0f} seconds") from None
        finally:
            with contextlib.suppress(ProcessLookupError):  # nothing was left running
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if status:
            raise MeasurementError(f"exit status {status}: {_last_line(complaints)}")
        return Reading(*json.loads(_last_line(output)))


def _environment(bytecode: str) -> dict[str, str]:
    environment = dict(os.environ, PYTHONPYCACHEPREFIX=bytecode)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def _last_line(file: IO[str]) -> str:
    file.seek(0)
    lines = file.read().strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _say(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)
