"""`follow=True`: the source of everything in its own package that a function may call counts as part of the function.

Which function `thing.method()` calls is not known before it runs, nor is which table of which module it reads. So what counts
is whole modules: that of the function, and those of the same top-level package that it imports, directly or through others. A
change in any of them changes the key, unless it is a change of comments, docstrings or layout. It may be in a function that is
never called; then a result is computed once more than needed, but never is a stale one returned.

What cannot be seen is not followed: modules that are imported by a computed name, other packages, and data files.

A module that has been edited since it was imported would make a key for code that does not run. So the functions in it are
compared with what its file compiles to; if one is missing there, the module gets a digest that no other process has.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

from asyncpar._cache.digests import DIGEST_BYTES, digest
from asyncpar._cache.sources import Source, digest_of_tree, parsed

_SUFFIX = ".py"


def digest_of_package(function: Any) -> bytes:
    """The digest of the function's module and of all that it imports from its own package."""
    first = getattr(function, "__module__", None) or type(function).__module__
    package = first.partition(".")[0]
    found: dict[str, bytes] = {}
    waiting = [first]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = _path_of(name)
        source = None if path is None else parsed(path.read_text("utf-8", "surrogateescape"), str(path))
        if source is None:
            found[name] = os.urandom(DIGEST_BYTES) if name == first else b""
            continue
        found[name] = digest_of_tree(source.tree) if _runs(name, source) else os.urandom(DIGEST_BYTES)
        is_package = path is not None and path.name == "__init__.py"
        waiting.extend(
            imported for imported in _imports(source.tree, name, is_package) if imported.partition(".")[0] == package
        )
    return digest(b"".join(f"{name}\0".encode() + found[name] for name in sorted(found)))


def _path_of(name: str) -> Path | None:
    module = sys.modules.get(name)
    origin = getattr(module, "__file__", None)
    if module is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return None  # not a module, but a name in one
        origin = None if spec is None else spec.origin
    return Path(origin) if origin is not None and origin.endswith(_SUFFIX) and Path(origin).is_file() else None


def _imports(tree: ast.Module, name: str, is_package: bool) -> Iterator[str]:
    """All that the module imports, anywhere in it, and the packages around that; names in modules as if they were modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = name.split(".") if is_package else name.split(".")[:-1]
            around = base[: len(base) - node.level + 1] if node.level else []
            target = ".".join([*around, *([node.module] if node.module else [])])
            yield from _with_parents(target)
            yield from (f"{target}.{alias.name}" for alias in node.names)
    yield from _with_parents(name)


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _runs(name: str, source: Source) -> bool:
    """Whether the functions of the module that has been imported are those of its source."""
    module = sys.modules.get(name)
    spaces = [] if module is None else [vars(module), *(vars(held) for held in vars(module).values() if isinstance(held, type))]
    functions = (held for space in spaces for held in space.values() if isinstance(held, FunctionType))
    return all(source.has(function.__code__) for function in functions if function.__module__ == name)
