"""Cuts the pickle of a list into pickles of its elements, when the whole cannot be read.

The pickle may hold the results of calls that have been made, so each element that can be read must be. Pickle itself stops at
the first error. So the pickle is followed here without being executed: which stretch of it makes which object, and which
objects it takes from the memo. An element's own pickle is then its stretch, after those that make the objects that it shares
with elements before it. What cannot be read fails only the elements that contain it.

Read one by one, elements no longer share objects with each other.

This takes some microseconds for each opcode, twenty times as long as reading the pickle. It happens once in a run, since the
next columns are sent one by one.
"""

from __future__ import annotations

import pickle
import pickletools
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from asyncpar._memory.buffers import Buffer

_FILLERS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}  # they change the object below and leave it there
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_NOT_NEEDED = {"PROTO", "FRAME", "STOP"}
_BEGIN = pickle.PROTO + bytes([pickle.HIGHEST_PROTOCOL])

Span: TypeAlias = tuple[int, int]  # a stretch of opcodes: the number of the first, and of the one after the last


def take_apart(data: Buffer, buffers: Sequence[Any]) -> Iterator[tuple[bytes, list[Any]]]:
    """The pickle of each element of the list that `data` is the pickle of, and the out-of-band buffers of that element."""
    followed = _Followed(bytes(data))
    for element in followed.elements:
        pieces = [_BEGIN]
        taken: list[Any] = []
        for span in [*followed.shared_by(element), element]:
            pieces += followed.pieces[slice(*span)]
            pieces.append(pickle.POP)  # what is shared is in the memo from here on
            taken += buffers[slice(*_within(followed.buffers, span))]
        pieces[-1] = pickle.STOP
        yield b"".join(pieces), taken


@dataclass(slots=True)
class _Object:
    """An object on the stack of an unpickler, or a mark there. The opcodes from `begin` up to `end` make it."""

    begin: int
    end: int
    is_mark: bool = False


class _Followed:
    """A pickle that has been followed.

    Attributes:
        pieces: its opcodes as they are written in the new pickles, where the numbers in the memo are explicit.
        elements: the opcodes that make each element of the list.
        buffers: the opcodes that take a buffer.
    """

    def __init__(self, data: bytes) -> None:
        self.pieces: list[bytes] = []
        self.elements: list[Span] = []
        self.buffers: list[int] = []
        self._memo: dict[int, _Object] = {}
        self._puts: list[int] = []  # the opcodes that write to the memo …
        self._put_numbers: list[int] = []  # … and the number that each of them uses
        self._gets: list[int] = []
        self._get_numbers: list[int] = []
        self._stack: list[_Object] = []
        self._follow(data)

    def shared_by(self, element: Span) -> list[Span]:
        """What makes the objects that `element` takes from the memo and does not make itself, in the order in which it is
        needed.
        """
        needed: set[Span] = set()
        to_see = [element]
        while to_see:
            span = to_see.pop()
            made = self._put_numbers[slice(*_within(self._puts, span))]
            used = self._get_numbers[slice(*_within(self._gets, span))]
            for number in set(used).difference(made):
                maker = self._memo[number]
                shared = maker.begin, maker.end
                if shared not in needed and not _contains(element, shared):
                    needed.add(shared)
                    to_see.append(shared)
        return _outermost(needed)

    def _follow(self, data: bytes) -> None:
        opcodes = list(pickletools.genops(data))
        ends = [position for _, _, position in opcodes[1:]] + [len(data)]
        number, before = 0, ("", "")
        for (opcode, argument, position), end in zip(opcodes, ends, strict=True):
            name = opcode.name
            if name in _NOT_NEEDED:
                continue
            self.pieces.append(data[position or 0 : end or len(data)])
            if name == "MEMOIZE":
                self._put(number, len(self._memo))
            elif name == "MARK":
                self._stack.append(_Object(number, number + 1, is_mark=True))
            elif name == "POP" and before == ("TUPLE2", "REDUCE"):  # it was called for what it does to the object below
                self._stack.pop()
                self._stack[-1].end = number + 1
            else:
                self._execute(opcode, argument, number)
            number, before = number + 1, (before[1], name)

    def _put(self, number: int, memo_number: int) -> None:
        self.pieces[number] = pickle.LONG_BINPUT + memo_number.to_bytes(4, "little")
        self._puts.append(number)
        self._put_numbers.append(memo_number)
        self._memo[memo_number] = self._stack[-1]
        self._stack[-1].end = number + 1

    def _execute(self, opcode: Any, argument: Any, number: int) -> None:
        if opcode.name in _GETS:
            self._gets.append(number)
            self._get_numbers.append(argument)
        elif opcode.name == "NEXT_BUFFER":
            self.buffers.append(number)
        taken = self._take(opcode)
        if opcode.name in _FILLERS:
            filled = taken[0]
            if not self._stack:  # it is the list itself
                self._note_elements(taken[1:], filled.end)
            filled.end = number + 1
            self._stack.append(filled)
        elif opcode.stack_after:
            self._stack.append(_Object(taken[0].begin if taken else number, number + 1))

    def _take(self, opcode: Any) -> list[_Object]:
        """What an opcode takes from the stack, with a mark if it looks for one."""
        stack, takes = self._stack, opcode.stack_before
        first = len(stack) - len(takes)
        if pickletools.markobject in takes:
            first = len(stack) - 1
            while not stack[first].is_mark:
                first -= 1
            first -= takes.index(pickletools.markobject)
        taken = stack[first:]
        del stack[first:]
        return taken

    def _note_elements(self, items: list[_Object], begin: int) -> None:
        """`items` are added to the list, perhaps with the mark before them. The first one's opcodes begin there."""
        for item in items:
            if not item.is_mark:
                self.elements.append((begin, item.end))
            begin = item.end


def _outermost(spans: Iterable[Span]) -> list[Span]:
    """Those that lie in no other, in order. Two of them never overlap without one containing the other."""
    outermost: list[Span] = []
    for span in sorted(spans, key=lambda span: (span[0], -span[1])):
        if not outermost or outermost[-1][1] <= span[0]:
            outermost.append(span)
    return outermost


def _contains(outer: Span, inner: Span) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _within(numbers: list[int], span: Span) -> Span:
    """The slice of these rising numbers that lies in `span`."""
    return bisect_left(numbers, span[0]), bisect_left(numbers, span[1])
