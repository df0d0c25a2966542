"""Sends a function's code with its file name, its line numbers and, if no file has them, its source lines.

A traceback shows lines that `linecache` finds. It reads the lines of files. It knows the lines of a notebook cell, of
`python -c` or of a prompt only in the process that compiled them. So such a code object carries its own lines, and unpickling
it adds them to the `linecache` there. Then a remote traceback shows what a traceback in the caller's process would show: no
more (for a program on stdin there are only line numbers) and no less.

The code itself is marshalled, as in a .pyc file, since both ends run the same Python. This is faster than cloudpickle's way,
which takes the parts of a code object one by one and, from 3.1.3 on, calls every file `<dynamic-code>`.

# Guarantees

- Code from a file costs one dictionary lookup, and one look at the file system if a traceback has shown that file.
- The size of what travels is in proportion to the code: its own lines, never a whole notebook.
- Functions of one cell add their lines to those that are already known.
- Lines that belong to one code object (in newer Pythons, since much code is called `<string>`) are not used for any other.
"""

from __future__ import annotations

import linecache
import marshal
from collections.abc import Sequence
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

from asyncpar._basics.locking import ModuleLock

_adding = ModuleLock()  # to what `linecache` knows: several threads read answers
_linecache: Any = linecache  # its entries for code without a file have no public name
_KNOWS_CODE = hasattr(linecache, "_getlines_from_code") and hasattr(linecache, "_register_code")


class Lines(NamedTuple):
    """Consecutive source lines, from line number `first` on. They belong to a file name, or to one code object only."""

    first: int
    lines: Sequence[str]
    of_file_name: bool


def reduce_code(code: CodeType) -> tuple[Any, ...] | None:
    """What pickle writes for `code`; None if it has a constant that no compiler makes, and cannot be marshalled."""
    try:
        data = marshal.dumps(code)
    except ValueError:
        return None
    lines = _lines_of(code)
    return load_code, ((data,) if lines is None else (data, *lines))


def load_code(data: bytes, *lines: Any) -> CodeType:
    """The code again. From now on, `linecache` knows its lines."""
    code: CodeType = marshal.loads(data)  # noqa: S302 - as with pickle, it comes from our own workers
    if lines:
        with _adding:
            _make_known(code, Lines(*lines))
    return code


def _lines_of(code: CodeType) -> Lines | None:
    """The code's lines, if another process could not read them from a file."""
    file_name = code.co_filename
    entry = _entry(file_name)
    if entry is not None:
        _, read_at, known, _ = entry
        if read_at is not None and Path(file_name).exists():
            return None
    elif _KNOWS_CODE and file_name.startswith("<"):
        known = _linecache._getlines_from_code(code)
    else:
        return None
    first = max(code.co_firstlineno, 1)
    lines = known[first - 1 : _last_line(code)]
    return Lines(first, lines, entry is not None) if lines else None


def _entry(file_name: str) -> Any:
    """The entry of `linecache` for this name: size, time (None if there is no file), lines, name."""
    entry: Any = linecache.cache.get(file_name)
    return None if entry is None or len(entry) == 1 else entry  # one of length 1 would have to be loaded


def _last_line(code: CodeType) -> int:
    """The last line of the code, including functions within it: the position of a definition covers the whole function."""
    return max((end or line or 0 for line, end, _, _ in code.co_positions()), default=0)


def _make_known(code: CodeType, source: Lines) -> None:
    file_name, begin, lines = code.co_filename, source.first - 1, list(source.lines)
    end = begin + len(lines)
    if source.of_file_name:
        entry = _entry(file_name)
        known = [] if entry is None else entry[2]
    else:
        known = _linecache._getlines_from_code(code)
    if known[begin:end] == lines:
        return
    if source.of_file_name:
        everything = known[:begin] + ["\n"] * (begin - len(known)) + lines + known[end:]
        linecache.cache[file_name] = (sum(map(len, everything)), None, everything, file_name)
    else:
        _linecache._register_code(code, "\n" * begin + "".join(lines), file_name)
