"""Imports point one way: each module imports only from layers below its own, and the child's side imports nothing heavy."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "asyncpar"

# From the top down. A module may import from lower layers and, within `same`, from its own.
LAYERS = [
    ["parallel"],
    ["parallel_call", "call_reports"],
    ["config", "portal", "calls", "parallel_timeout", "pre_dispatch"],
    ["parallel_map"],
    ["stream"],
    ["plan", "sinks"],
    ["executors/__init__"],
    ["executors/process", "executors/thread", "executors/coroutine"],
    ["executors/inline", "executors/process_worker"],
    ["executors/zygote_client", "executors/process_parcel", "scheduler"],
    ["executors/zygote_start"],
    ["progress"],
    ["executors/base", "executors/memory_watch", "sources", "statistics", "sharing"],
    ["feedback"],
    ["batching"],
    ["retrying"],
    ["outcomes", "background", "cpus", "memory", "off_loop", "reporting"],
    ["validation", "hints", "reloading", "closed_loops"],
    ["workers/zygote"],
    ["workers/process_main"],
    ["workers/run_coroutines", "workers/protocol", "workers/lifetime", "workers/shared_memory", "workers/call_forms"],
    ["workers/run_batch", "workers/leftovers", "workers/own_imports", "wire/async_channel", "wire/failures"],
    ["workers/control", "workers/multiprocessing_ties", "workers/unawaited", "wire/channel", "wire/readiness", "wire/codec"],
    ["wire/pace", "wire/blame", "wire/segments", "wire/placer"],
    ["wire/blocks"],
    ["wire/frames", "wire/parts", "wire/remedies", "wire/loaded", "wire/arrays"],
    ["wire/pickler"],
    ["wire/code_objects", "wire/bound_objects"],
    ["wire/unfinished"],
    ["errors", "nesting", "notes", "wording"],
    ["workers/__init__", "wire/__init__"],
]
LEVEL = {module: level for level, layer in enumerate(LAYERS) for module in layer}
CHILD_SIDE = [
    "errors",
    "nesting",
    "notes",
    "wording",
    *(
        module
        for module in LEVEL
        if module.startswith(("workers/", "wire/")) and not module.endswith(("async_channel", "readiness"))
    ),
]
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))


def imports_of(module: str) -> list[ast.Import | ast.ImportFrom]:
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def own_modules_imported_by(module: str) -> set[str]:
    found = set()
    for node in imports_of(module):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        for name in names:
            if name == "asyncpar" or name.startswith("asyncpar."):
                path = name.removeprefix("asyncpar").removeprefix(".").replace(".", "/")
                found.add(path if path in LEVEL else f"{path}/__init__".removeprefix("/"))
    return found


@pytest.mark.parametrize("module", [module for module in MODULES if module != "__init__"])
def test_a_module_imports_only_from_layers_below(module: str) -> None:
    assert module in LEVEL, f"{module} has no place in the layers yet"
    above = [other for other in own_modules_imported_by(module) if LEVEL.get(other, -1) <= LEVEL[module]]
    late = {"executors/__init__"} if module == "plan" else set()
    assert not set(above) - late, f"{module} imports {above}, which stand above or beside it"


@pytest.mark.parametrize("module", CHILD_SIDE)
def test_the_childs_side_imports_nothing_heavy(module: str) -> None:
    heavy = {"asyncio", "anyio", "numpy", "uvloop", "subprocess", "multiprocessing", "concurrent"}
    if module == "workers/run_coroutines":
        heavy -= {"asyncio"}  # imported only by a worker with a coroutine function
    if module == "wire/arrays":
        heavy -= {"numpy"}  # imported only where numpy is
    found = set()
    for node in top_level(imports_of(module), module):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        found |= {name.split(".")[0] for name in names}
    assert not found & heavy


def top_level(nodes: list[ast.Import | ast.ImportFrom], module: str) -> list[ast.Import | ast.ImportFrom]:
    body = ast.parse((PACKAGE / f"{module}.py").read_text()).body
    lines = {node.lineno for node in body}
    return [node for node in nodes if node.lineno in lines]


def test_nothing_inside_the_package_imports_its_face() -> None:
    assert not [module for module in MODULES if "__init__" in own_modules_imported_by(module)]
