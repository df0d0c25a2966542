"""A kit that cannot fail is worth nothing: each executor that breaks the contract fails it, and is told why."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.broken_executors import BROKEN

FILE = Path(__file__).with_name("broken_executors.py")


@pytest.mark.timeout(300)
def test_a_broken_executor_fails_the_kit_and_is_told_why(tmp_path: Path) -> None:
    tests = {f"{FILE}::Test{kind.__name__}::{test}": words for kind, (test, words) in BROKEN.items()}
    options = ["-rf", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "timeout=0", f"--basetemp={tmp_path / 'tests'}"]
    command = [sys.executable, "-m", "pytest", *options, f"{FILE}::TestSound", *tests]
    environment = {**os.environ, "COLUMNS": "1000"}  # a line each
    printed = subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stdout
    found = re.findall(r"^FAILED .*::(Test\w+)::(\S+) - (.*)$", printed, re.MULTILINE)
    said = {f"{FILE}::{name}::{test}": message for name, test, message in found}
    assert "TestSound" not in {name for name, _, _ in found}, printed[-3000:]
    unnoticed = {test: said.get(test) for test, words in tests.items() if words not in said.get(test, "")}
    assert not unnoticed, printed[-3000:]
