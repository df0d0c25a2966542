"""`asyncpar.testing` needs pytest and psutil, and says so; what workers import of it needs neither."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("missing", ["pytest", "psutil"])
@pytest.mark.parametrize("name", ["ExecutorContract", "nothing_is_left_behind", "belongings", "left_since"])
def test_what_is_missing_is_named_with_the_remedy(missing: str, name: str) -> None:
    done = run(f"import sys; sys.modules[{missing!r}] = None; from asyncpar.testing import {name}")
    words = f"ImportError: asyncpar.testing needs {missing}, which is not installed: pip install 'asyncpar[testing]'"
    assert words in done.stderr


def test_workers_import_functions_without_anything_heavy() -> None:
    heavy = {"pytest", "psutil", "numpy", "hypothesis", "anyio", "asyncio"}
    done = run(f"import sys, asyncpar.testing.functions; print({heavy!r} & sys.modules.keys())")
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_all_names_can_be_had() -> None:
    import asyncpar.testing

    assert set(asyncpar.testing.__all__) <= set(dir(asyncpar.testing))
    for name in asyncpar.testing.__all__:
        assert getattr(asyncpar.testing, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'executor_contract'"):
        asyncpar.testing.executor_contract  # noqa: B018
