"""The digest of a function's code: of its syntax tree, where its source is known, so that comments, annotations' spacing, moved
lines and the version of Python do not matter.

The tree is written node by node, with the fields in the order of their names and empty ones left out. So it is the same on all
versions of Python that can parse the source, which `ast.dump` and `ast.unparse` are not. Decorators are left out: what they
do to a function is in the closure of what they return. Docstrings are left out, too.

# Guarantees

- **The source is that of the code.** A file may have been edited since it was imported. So the file is compiled, and the
  function is looked for among what came out; if it is not there, the code itself is digested. Such a key holds for one version
  of Python. The same goes for functions that `exec` has made.
- **Two lambdas on one line are told apart** by the positions of their code.

A function that has travelled to a worker keeps the digest that it had (`known`), if its code is the same there.
"""

from __future__ import annotations

import ast
import linecache
import sys
import threading
from collections.abc import Iterator, Set
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

from asyncpar._cache.digests import DIGEST_BYTES

_LEFT_OUT = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
_ZERO_MEANS_ABSENT = frozenset({"is_lazy"})  # fields that newer versions have added to old nodes, with this default
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class CodeDigest(NamedTuple):
    """`of_code` is that of the compiled code, and `digest` that of its source, if it is known."""

    of_code: bytes
    digest: bytes


_parsing = threading.Lock()
known: dict[bytes, bytes] = {}  # {digest of compiled code: digest of its source}


@lru_cache(maxsize=4096)
def digest_of_code(code: CodeType) -> CodeDigest:
    """The digest of a function's code. (Equal code is looked for once.)"""
    of_code = _digest("code", *_compiled(code), str(sys.version_info[:2]))
    if of_code not in known:
        text = _text_of(code)
        known[of_code] = of_code if text is None else _digest("source", text)
    return CodeDigest(of_code, known[of_code])


def digest_of_tree(node: ast.AST) -> bytes:
    """The digest of a syntax tree, without comments and docstrings."""
    return _digest("source", _written(node))


def functions_in(code: CodeType) -> Iterator[CodeType]:
    """The code of all functions and classes that are defined in it."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from functions_in(constant)


class Source(NamedTuple):
    """A file as it can be read now: its tree, and the digests of all code that it compiles to, with the first line."""

    tree: ast.Module
    compiled: frozenset[tuple[int, bytes]]

    def has(self, code: CodeType) -> bool:
        return (code.co_firstlineno, _digest("code", *_compiled(code))) in self.compiled


@lru_cache(maxsize=32)
def parsed(text: str, file_name: str) -> Source | None:
    """The source of a file; None if it is not Python (any more)."""
    try:
        tree = _parse(text)
        compiled = compile(text, file_name, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        return None
    codes = ((code.co_firstlineno, _digest("code", *_compiled(code))) for code in functions_in(compiled))
    return Source(tree, frozenset(codes))


def _parse(text: str) -> ast.Module:
    """Python 3.11 counts how deep it is in the tree for all threads together, and fails if two of them parse at once."""
    while True:
        try:
            with _parsing:
                return ast.parse(text)
        except SystemError:  # a thread of somebody else's has parsed something
            continue


def label_of_module(name: str, code: CodeType | None = None) -> str:
    """The module's name; for the main program, which has the same name in all programs, the path of its file."""
    if name == "__main__" and code is not None and Path(code.co_filename).is_file():
        return str(Path(code.co_filename).resolve())
    return name


def _text_of(code: CodeType) -> str | None:
    file_name = code.co_filename
    for fresh in (False, True):
        if fresh:
            linecache.checkcache(file_name)
        source = parsed("".join(linecache.getlines(file_name)), file_name)
        if source is not None and source.has(code):
            node = _node_of(code, source.tree)
            return None if node is None else _written(node, without={"decorator_list"})
    return None


def _node_of(code: CodeType, tree: ast.Module) -> ast.AST | None:
    """The function's node; None if it cannot be told which it is."""
    line, name = code.co_firstlineno, code.co_name
    if name != "<lambda>":
        found: list[ast.AST] = [
            node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS) and node.name == name and _first_line(node) == line
        ]
    else:
        lambdas = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda) and node.lineno == line]
        positions = set(code.co_positions())
        found = list(lambdas) if len(lambdas) == 1 else [node for node in lambdas if _position(node.body) in positions]
    return found[0] if len(found) == 1 else None


def _first_line(node: Any) -> int:
    return int(min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]))


def _position(node: ast.expr) -> tuple[int | None, ...]:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def _written(node: ast.AST, without: Set[str] = frozenset()) -> str:
    out: list[str] = []
    _write(node, out, without)
    return "".join(out)


def _write(node: object, out: list[str], without: Set[str] = frozenset()) -> None:
    if isinstance(node, ast.AST):
        out.append(f"({type(node).__name__}")
        for name in sorted(set(node._fields) - without):
            held = getattr(node, name, None)
            if name in _LEFT_OUT or held is None or held == [] or (name in _ZERO_MEANS_ABSENT and held == 0):
                continue
            if name == "body" and isinstance(node, _DOCUMENTED):
                held = _undocumented(held)
            out.append(f" {name}=")
            _write(held, out)
        out.append(")")
    elif isinstance(node, list):
        out.append("[")
        for element in node:
            _write(element, out)
        out.append("]")
    else:
        out.append(f"{type(node).__name__}:{node!r}")


def _undocumented(body: Any) -> list[Any]:
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *rest]:
            return rest
    return list(body)


def _compiled(code: CodeType) -> Iterator[str]:
    """All that decides what the code does, as text."""
    yield from (code.co_qualname, code.co_code.hex(), str(code.co_flags), str(code.co_argcount), str(code.co_kwonlyargcount))
    for names in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars):
        yield repr(names)
    yield code.co_exceptiontable.hex()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _compiled(constant)
        elif isinstance(constant, frozenset):
            yield repr(sorted(map(repr, constant)))
        else:
            yield f"{type(constant).__name__}:{constant!r}"


def _digest(*texts: str) -> bytes:
    digester = blake2b(digest_size=DIGEST_BYTES)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digester.update(len(data).to_bytes(8, "little") + data)
    return digester.digest()
