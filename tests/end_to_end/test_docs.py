"""Every complete program in the documentation runs, and prints what the page says it prints."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.interpreters import needs_interpreters

DOCS = Path(__file__).parents[2] / "docs"
PROGRAM_AND_OUTPUT = re.compile(r"^```python\n((?:(?!```).)*)^```\n\n```text\n((?:(?!```).)*)^```", re.DOTALL | re.MULTILINE)

NEEDS = {
    "DaskExecutor": pytest.mark.skipif(find_spec("distributed") is None, reason="distributed is not installed"),
    "InterpreterExecutor": needs_interpreters,
    "sklearn": pytest.mark.skipif(find_spec("sklearn") is None, reason="scikit-learn is not installed"),
}
PROGRAMS = [
    pytest.param(
        found[1],
        found[2],
        id=f"{page.relative_to(DOCS)}-{number}",
        marks=[mark for word, mark in NEEDS.items() if word in found[1]],
    )
    for page in sorted(DOCS.rglob("*.md"))
    for number, found in enumerate(PROGRAM_AND_OUTPUT.finditer(page.read_text(encoding="utf-8")), start=1)
]


@pytest.mark.parametrize(("program", "output"), PROGRAMS)
def test_a_program_prints_what_its_page_says(tmp_path: Path, program: str, output: str) -> None:
    script = tmp_path / "program.py"
    script.write_text(program, encoding="utf-8")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert without_numbers_of_workers(done.stdout) == without_numbers_of_workers(output)


def without_numbers_of_workers(text: str) -> str:
    return re.sub(r"worker \d+", "worker N", text.rstrip())


def test_there_are_programs_in_the_documentation() -> None:
    assert len(PROGRAMS) > 20
