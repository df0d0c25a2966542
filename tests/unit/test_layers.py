"""Imports point one way: each package imports only from packages below its own, and the child's side imports nothing heavy."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "asyncpar"

# From the top down. The packages of one layer do not know each other.
LAYERS = [
    ["testing", "__main__", "joblib"],
    ["_sync"],
    ["_map"],
    ["executors", "_run"],
    ["_engines", "_interpreters"],
    ["_processes"],
    ["_contract"],
    ["_child"],
    ["_cache"],
    ["_wire"],
    ["_memory"],
    ["_platform"],
    ["_basics"],
    ["errors"],
]
LEVEL = {package: level for level, layer in enumerate(LAYERS) for package in layer}
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))
INSIDE = [module for module in MODULES if module != "__init__"]
CHILD_SIDE = [
    *(module for module in MODULES if module.startswith(("_child/", "_cache/", "_wire/", "_memory/", "_basics/"))),
    "errors",
    "_platform/nesting",
    "_platform/current_worker",
    "_platform/own_imports",
]
ONLY_IN_THE_PARENT = {"_wire/async_channel", "_wire/readiness"}
HEAVY = {"asyncio", "anyio", "numpy", "uvloop", "subprocess", "multiprocessing", "concurrent"}
ALLOWED = {
    "_child/run_coroutines": {"asyncio", "uvloop"},  # imported only by a worker with a coroutine function
    "_child/event_loop": {"asyncio"},  # this, too
    "_wire/arrays": {"numpy"},  # imported only where numpy is
    "_cache/array_parts": {"numpy"},  # these, too
    "_cache/frame_parts": {"numpy"},
    "_cache/arrow_parts": {"numpy"},
    "_cache/async_calls": {"anyio"},  # imported only by a call that is awaited
}


def imports_of(module: str, *, at_once: bool = False) -> set[str]:
    """The names of the modules that it imports; `at_once`: when it is imported itself."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    found = set()
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def own_modules_imported_by(module: str, *, at_once: bool = False) -> set[str]:
    imported = imports_of(module, at_once=at_once)
    own = {name.removeprefix("asyncpar.").replace(".", "/") for name in imported if name.startswith("asyncpar.")}
    return {name for name in own if name in MODULES or f"{name}/__init__" in MODULES}


def package_of(module: str) -> str:
    return module.split("/", maxsplit=1)[0]


@pytest.mark.parametrize("module", INSIDE)
def test_a_module_imports_only_from_packages_below_its_own(module: str) -> None:
    own = package_of(module)
    others = {package_of(name) for name in own_modules_imported_by(module)} - {own}
    above = {other for other in others if LEVEL[other] <= LEVEL[own]}
    assert not above, f"{module} imports from {above}, above or beside {own}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: own_modules_imported_by(module, at_once=True) - {package_of(module)} for module in INSIDE}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("module", [module for module in CHILD_SIDE if module not in ONLY_IN_THE_PARENT])
def test_the_childs_side_imports_nothing_heavy(module: str) -> None:
    imported = {name.split(".")[0] for name in imports_of(module, at_once=True)}
    assert not imported & HEAVY - ALLOWED.get(module, set())


@pytest.mark.parametrize("package", sorted(package for package in LEVEL if (PACKAGE / package).is_dir()))
def test_a_package_begins_with_an_essay(package: str) -> None:
    essay = ast.get_docstring(ast.parse((PACKAGE / package / "__init__.py").read_text()))
    assert essay is not None
    assert len(essay.splitlines()) >= 5


def test_nothing_inside_the_package_imports_its_face() -> None:
    assert not [module for module in INSIDE if "asyncpar" in imports_of(module)]
