"""For authors of executors: a kit of tests that every executor must pass, and a check that nothing is left behind.

    from asyncpar.testing import ExecutorContract

    class TestMine(ExecutorContract):
        def make_executor(self):
            return MyExecutor(2)

That is a whole test file: pytest finds the tests of the kit in `TestMine`, and runs them on asyncio, on uvloop and on trio, as
far as these are installed. `contract.py` lists what else a subclass may say.

This package is also a pytest plugin. With `pytest_plugins = ["asyncpar.testing"]` in conftest.py there is a fixture
`nothing_is_left_behind`, which fails a test that leaves a process, a thread, a descriptor or a file behind.

pytest and psutil are needed (`pip install 'asyncpar[testing]'`). Workers do not need them: they import
`asyncpar.testing.functions`, which has the functions that the tests map. So names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncpar.testing.contract import ExecutorContract as ExecutorContract
    from asyncpar.testing.leftovers import belongings as belongings
    from asyncpar.testing.leftovers import left_since as left_since
    from asyncpar.testing.plugin import nothing_is_left_behind as nothing_is_left_behind

__all__ = ["ExecutorContract", "belongings", "left_since", "nothing_is_left_behind"]

_HOMES = {
    "ExecutorContract": "contract",
    "belongings": "leftovers",
    "left_since": "leftovers",
    "nothing_is_left_behind": "plugin",
}
_WITH_ASSERTIONS = ("contract", "kit", "results", "errors", "ends", "sharing")


def pytest_configure(config: object) -> None:
    """Says at once what is missing; otherwise a fixture that cannot be loaded would just not be found."""
    _load("plugin")


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'asyncpar.testing' has no attribute {name!r}")
    value = globals()[name] = getattr(_load(home), name)
    return value


def __dir__() -> list[str]:
    return sorted((*__all__, "pytest_configure"))


def _load(home: str) -> Any:
    try:
        import psutil  # noqa: F401 - only to see whether it is there
        import pytest
    except ImportError as error:
        raise ImportError(
            f"asyncpar.testing needs {error.name}, which is not installed: pip install 'asyncpar[testing]'", name=error.name
        ) from error
    own = [f"{__name__}.{module}" for module in _WITH_ASSERTIONS]
    pytest.register_assert_rewrite(*(module for module in own if module not in sys.modules))
    return importlib.import_module(f"{__name__}.{home}")
