"""Placeholder until the example is there."""

from __future__ import annotations

from tests.benchmarks.frame import Case

CASES: tuple[Case, ...] = ()
