"""`python -m asyncpar cache`: what is in a cache, whether it is sound, and making it smaller.

    ls        each function with its entries, bytes, and when they were last used; --entries lists the entries
    stats     totals, with hits and misses
    verify    reads and checks every entry; --remove removes those that are damaged
    prune     removes what was not used for longest, until the limits hold
    clear     removes everything

Nothing is unpickled. The exit status is 1 if `verify` has found damage, or if the folder is no cache.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from asyncpar._cache.entries import DamagedEntryError, Reader, verify
from asyncpar._cache.inputs import FileInput
from asyncpar._cache.pruning import EntryFile, Limits, entry_files, prune
from asyncpar._cache.serializers import PICKLE
from asyncpar._cache.settings import to_age, to_size
from asyncpar._cache.store import FORMAT_FOLDER, READING, Store
from asyncpar._cache.tally import Totals, read_tally, reset

_PROGRESS_SECONDS = 0.2


def run(arguments: Sequence[str]) -> int:
    """Runs the command, and returns its exit status."""
    options = _parser().parse_args(arguments)
    folder = os.path.join(options.folder, FORMAT_FOLDER)
    if not os.path.isdir(folder):
        print(f"{options.folder} is no cache of asyncpar: it has no folder {FORMAT_FOLDER}", file=sys.stderr)
        return 1
    command: Callable[[argparse.Namespace, str], int] = options.command
    return command(options, folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m asyncpar cache", description="Looks after a disk cache.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace, str], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("folder", help="the location that Memory was given")
        added.add_argument("--json", action="store_true", help="print JSON")
        added.set_defaults(command=command)
        return added

    listing = add("ls", _list, "lists functions with their entries")
    listing.add_argument("--entries", action="store_true", help="list each entry")
    add("stats", _stats, "shows totals, hits and misses")
    checking = add("verify", _verify, "checks every entry, and reads all of it")
    checking.add_argument("--remove", action="store_true", help="remove damaged entries")
    checking.add_argument("--key-file", help="a file with the bytes that entries are signed with")
    pruning = add("prune", _prune, "removes what was not used for longest, until the limits hold")
    pruning.add_argument("--bytes", type=_size, metavar="SIZE", help="how much may stay, such as 10G")
    pruning.add_argument("--items", type=int, metavar="COUNT", help="how many entries may stay")
    pruning.add_argument("--age", type=_age, metavar="AGE", help="how long entries may be unused, such as 7d, 12h or 90s")
    clearing = add("clear", _clear, "removes everything")
    clearing.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def _list(options: argparse.Namespace, folder: str) -> int:
    progress = _Progress("looking at")
    if options.entries:
        rows = []
        for entry in entry_files(folder):
            progress(entry)
            key = "".join(entry.path.split(os.sep)[-2:])
            rows.append({"function": entry.function, "key": key, "bytes": entry.bytes, "unused_seconds": _since(entry.used)})
    else:
        rows = list(_functions(folder, progress).values())
    progress.end()
    if options.json:
        print(json.dumps(rows))
    else:
        _print_table(rows)
    return 0


def _functions(folder: str, progress: _Progress) -> dict[str, dict[str, Any]]:
    functions: dict[str, dict[str, Any]] = {}
    for entry in entry_files(folder):
        progress(entry)
        age = _since(entry.used)
        row = functions.setdefault(
            entry.function, {"function": entry.function, "entries": 0, "bytes": 0, "unused_seconds": age}
        )
        row["entries"] += 1
        row["bytes"] += entry.bytes
        row["unused_seconds"] = min(row["unused_seconds"], age)
    return dict(sorted(functions.items()))


def _stats(options: argparse.Namespace, folder: str) -> int:
    progress = _Progress("looking at")
    functions = _functions(folder, progress).values()
    progress.end()
    tally = read_tally(folder)
    asked = tally.hits + tally.misses
    found = {
        "functions": len(functions),
        "entries": sum(row["entries"] for row in functions),
        "bytes": sum(row["bytes"] for row in functions),
        "hits": tally.hits,
        "misses": tally.misses,
        "hit_rate": round(tally.hits / asked, 4) if asked else None,
        "kept": tally.kept,
    }
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:10} {_shown(name, value)}")
    return 0


def _verify(options: argparse.Namespace, folder: str) -> int:
    key = None
    if options.key_file is not None:
        with open(options.key_file, "rb") as file:
            key = file.read()
    reader = Reader(PICKLE, key)
    progress = _Progress("checking")
    damaged: list[dict[str, str]] = []
    count = 0
    for entry in entry_files(folder):
        progress(entry)
        count += 1
        problem = _problem(entry, reader)
        if problem is not None:
            damaged.append({"path": entry.path, "problem": problem})
            if options.remove:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
    progress.end()
    if options.json:
        print(json.dumps({"entries": count, "damaged": damaged}))
    else:
        for one in damaged:
            print(f"{one['path']}: {one['problem']}")
        print(f"{count} entries, {len(damaged)} damaged{' and removed' if options.remove and damaged else ''}")
    return 1 if damaged else 0


def _problem(entry: EntryFile, reader: Reader) -> str | None:
    try:
        fd = os.open(entry.path, READING)
    except FileNotFoundError:  # removed meanwhile
        return None
    try:
        found = verify(FileInput(fd), reader, with_buffers=True, any_serializer=True)
        prefix, name = entry.path.split(os.sep)[-2:]
        return None if found.key.hex() == prefix + name else "it is the entry of another call"
    except (DamagedEntryError, OSError) as error:
        return str(error)
    finally:
        os.close(fd)


def _prune(options: argparse.Namespace, folder: str) -> int:
    limits = Limits(options.bytes, options.items, options.age)
    if limits == Limits():
        print("prune takes at least one of --bytes, --items and --age", file=sys.stderr)
        return 2
    seen = [0, 0]
    progress = _Progress("looking at")

    def look(entry: EntryFile) -> None:
        progress(entry)
        seen[0] += 1
        seen[1] += entry.bytes

    left = prune(folder, limits, seen=look)
    progress.end()
    totals = read_tally(folder)
    reset(folder, Totals(totals.hits, totals.misses, totals.kept, left.bytes))
    removed = {"removed": seen[0] - left.items, "freed_bytes": seen[1] - left.bytes, "entries": left.items, "bytes": left.bytes}
    if options.json:
        print(json.dumps(removed))
    else:
        freed = _bytes(removed["freed_bytes"])
        print(f"removed {removed['removed']} entries, {freed}; {left.items} are left, {_bytes(left.bytes)}")
    return 0


def _clear(options: argparse.Namespace, folder: str) -> int:
    if not options.yes:
        if not sys.stdin.isatty():
            print("clear asks first, but there is no terminal; pass --yes", file=sys.stderr)
            return 2
        if input(f"Remove all results in {options.folder}? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return 1
    Store(options.folder, Reader(PICKLE, b"not used to read")).clear()
    reset(folder, Totals())
    print(json.dumps({"cleared": options.folder}) if options.json else f"{options.folder} is empty")
    return 0


class _Progress:
    """Says on stderr how far long work is, if somebody looks."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._count = 0
        self._shown = time.monotonic()
        self._has_shown = False

    def __call__(self, _: EntryFile) -> None:
        self._count += 1
        if sys.stderr.isatty() and time.monotonic() - self._shown > _PROGRESS_SECONDS:
            self._shown = time.monotonic()
            self._has_shown = True
            print(f"\r{self._doing} {self._count} entries", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._has_shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _print_table(rows: list[dict[str, Any]]) -> None:
    if not rows:
        print("no entries")
        return
    names = list(rows[0])
    lines = [names, *([_shown(name, row[name]) for name in names] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _shown(name: str, value: Any) -> str:
    if name == "bytes":
        return _bytes(value)
    if name == "unused_seconds":
        return f"{value:.0f}"
    return "-" if value is None else str(value)


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _since(used: float) -> float:
    return round(max(0.0, time.time() - used), 1)


def _size(text: str) -> int:
    try:
        size = to_size(text, "SIZE")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    assert size is not None, "there is a text"
    return size


def _age(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        seconds = to_age(float(number) * unit, "AGE")
    except ValueError:
        raise argparse.ArgumentTypeError(f"an age is a number with s, m, h, d or w, such as 7d, not {text!r}") from None
    assert seconds is not None, "there is a text"
    return seconds
