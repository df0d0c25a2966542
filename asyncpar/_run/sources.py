"""Any iterable or async iterable, or several zipped, as one source from which batches are cut.

Two kinds share one face. A *sync* source is pulled by the scheduler itself, as many items at a time as the next batch
needs; sequences are cut as slices. An *async* source is pulled by a pump, one task that owns the iterator (an async
generator must not be cancelled in the middle of an item) and fills a small store from which batches take what is there: a slow
source makes batches of one, a fast one fills them.

    take(n)     up to n items as columns, synchronously; () when there is nothing now
    exhausted   no further item will come
    error       what the iterable raised, if that is why
    aclose()    closes generators, sync and async

Only what was asked for is pulled. Items pulled before the iterable raised are delivered before its error.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from itertools import islice
from typing import Any, TypeAlias, TypeVar

import anyio

from asyncpar._basics.loaded import loaded_numpy
from asyncpar._basics.wording import short_repr
from asyncpar._contract.batches import BatchDone

T = TypeVar("T")
Columns: TypeAlias = tuple[Sequence[Any], ...]
Items: TypeAlias = Iterable[T] | AsyncIterable[T]

_SLICED_TYPES = frozenset({list, tuple, range, str, bytes})

_PULL_SECONDS = 2e-3  # a batch from a slow generator is cut short here, so that pulling does not hold the event loop
_PULL_PIECE = 64  # items pulled between two looks at the clock; 3 % at 20 ns an item


class Source(ABC):
    """Where a run's items come from."""

    is_pumped = False  # its items come from a `PumpedSource`'s store
    needs_closing = True
    exhausted = False
    error: BaseException | None = None
    seconds_per_item = 0.0  # what pulling one takes, if somebody has measured it
    function: Callable[..., Any] | None = None  # of the calls just taken, if they have a function of their own
    indices: Sequence[int] | None = None  # of the calls just taken, if they do not follow those taken before

    @abstractmethod
    def take(self, count: int) -> Columns:
        """Up to `count` of the next items, one column for each iterable; () when there is none now."""

    @property
    def remaining(self) -> int | None:
        """How many items are still to come, where that is known."""
        return None

    @property
    def stored(self) -> int:
        """Items that have been pulled ahead and are there to be taken."""
        return 0

    async def aclose(self) -> None:  # noqa: B027 - most sources have nothing to close
        """Lets generators run their `finally` blocks."""


def open_source(iterables: Sequence[Any]) -> Source:
    """The source that fits `iterables`.

    Raises:
        TypeError: one of them cannot be iterated over.
    """
    if all(map(_can_be_sliced, iterables)):
        return SlicedSource(iterables)
    if any(map(_is_async, iterables)):
        return AsyncSource(
            [(True, aiter(it)) if _is_async(it) else (False, _iter(it, position)) for position, it in enumerate(iterables)]
        )
    return IteratorSource([_iter(iterable, position) for position, iterable in enumerate(iterables)])


class SlicedSource(Source):
    """Sequences, cut as slices: ten items of a range cost as much as ten million."""

    needs_closing = False

    def __init__(self, sequences: Sequence[Any]) -> None:
        self._sequences = sequences
        self._length = min(map(len, sequences))
        self._position = 0
        self.exhausted = self._length == 0

    @property
    def remaining(self) -> int:
        return self._length - self._position

    def take(self, count: int) -> Columns:
        begin = self._position
        end = min(begin + count, self._length)
        columns = tuple([sequence[begin:end] for sequence in self._sequences])
        taken = len(columns[0]) if len(columns) == 1 else min(map(len, columns))
        if taken < end - begin:  # a list has become shorter since; it ends there
            self._length = begin + taken
            columns = tuple([column[:taken] for column in columns])
        self._position = begin + taken
        self.exhausted = self._position == self._length
        return columns if taken else ()


class IteratorSource(Source):
    """Iterators, pulled in step like `zip` does."""

    def __init__(self, iterators: list[Iterator[Any]]) -> None:
        self._iterators = iterators
        self._rows = iterators[0] if len(iterators) == 1 else zip(*iterators, strict=False)
        self._zipped = len(iterators) > 1

    def take(self, count: int) -> Columns:
        pulled: list[Any] = []
        deadline = time.monotonic() + _PULL_SECONDS
        while len(pulled) < count and not self.exhausted:
            self._pull(pulled, min(_PULL_PIECE, count - len(pulled)))
            if time.monotonic() > deadline:
                break
        return _to_columns(pulled, self._zipped)

    def _pull(self, pulled: list[Any], count: int) -> None:
        expected = len(pulled) + count
        try:
            for row in islice(self._rows, count):
                pulled.append(row)  # noqa: PERF402 - extend() could lose what came before an error
        except Exception as error:
            self.error = error
            self.exhausted = True
        if len(pulled) < expected:
            self.exhausted = True

    def close(self) -> None:
        """Does what `aclose` does, which has nothing to await."""
        _close_generators(self._iterators)

    async def aclose(self) -> None:
        self.close()


class PumpedSource(Source):
    """A source whose items must be awaited. The run's pump, one task, does that and fills a store."""

    is_pumped = True
    most_at_once = 1  # items that one `pump` may bring
    ahead = 0  # items that it would have pulled ahead, if that is more than workers need

    @abstractmethod
    async def pump(self, count: int) -> int:
        """Pulls up to `count` items; returns how many: 0 at the end. Called by one task only."""


class AnsweringSource(PumpedSource):
    """A source that knows the outcomes of some calls, so that no worker makes them. It numbers its calls itself (`indices`).

    Calls may also wait in it for the outcome of another one, and so it is told the outcomes of all that it has given out.
    """

    @abstractmethod
    def take_answers(self) -> list[BatchDone]:
        """What it has answered since it was last asked."""

    @abstractmethod
    def settle(self, done: BatchDone) -> None:
        """Tells it what became of calls that were taken."""

    @abstractmethod
    async def answer_doubles(self) -> None:
        """Looks for the outcomes of calls that waited for those that have been settled."""


class AsyncSource(PumpedSource):
    """Async iterables (plain ones beside them are zipped in)."""

    def __init__(self, iterators: list[tuple[bool, Any]]) -> None:
        self._iterators = iterators  # and whether each is async
        self._store: deque[Any] = deque()
        self._zipped = len(iterators) > 1
        self._pumped_out = False

    def take(self, count: int) -> Columns:
        store = self._store
        pulled = [store.popleft() for _ in range(min(count, len(store)))]
        self.exhausted = self._pumped_out and not store
        return _to_columns(pulled, self._zipped)

    @property
    def stored(self) -> int:
        return len(self._store)

    async def pump(self, count: int) -> int:
        try:
            row = []  # a loop: in a comprehension, StopIteration would turn into a RuntimeError
            for is_async, iterator in self._iterators:
                row.append(await anext(iterator) if is_async else next(iterator))
        except (StopIteration, StopAsyncIteration):
            self._end(None)
            return 0
        except Exception as error:
            self._end(error)
            return 0
        self._store.append(tuple(row) if self._zipped else row[0])
        return 1

    def _end(self, error: Exception | None) -> None:
        self.error = error
        self._pumped_out = True
        self.exhausted = not self._store

    async def aclose(self) -> None:
        async with AsyncExitStack() as stack:
            stack.callback(_close_generators, [iterator for _, iterator in self._iterators])
            for _, iterator in self._iterators:
                if isinstance(iterator, AsyncGenerator):
                    stack.push_async_callback(_aclose, iterator)


def _to_columns(rows: list[Any], zipped: bool) -> Columns:
    if not rows:
        return ()
    return tuple(map(list, zip(*rows, strict=True))) if zipped else (rows,)


def _close_generators(iterators: Sequence[object]) -> None:
    with ExitStack() as stack:  # the others are closed even if one of them raises
        for iterator in iterators:
            if isinstance(iterator, Generator):
                stack.callback(iterator.close)


async def _aclose(generator: AsyncGenerator[Any, Any]) -> None:
    with anyio.CancelScope(shield=True):
        await generator.aclose()


def _can_be_sliced(iterable: Any) -> bool:
    """Exact types only: a subclass may iterate over something else than its slices."""
    if type(iterable) in _SLICED_TYPES:
        return True
    numpy = loaded_numpy()  # an array can only be here if numpy is
    return numpy is not None and type(iterable) in (numpy.ndarray, numpy.memmap) and iterable.ndim > 0


def _is_async(iterable: object) -> bool:
    """Looks at the type, as Python does: some objects have any attribute, and some classes are themselves iterable."""
    return hasattr(type(iterable), "__aiter__")


def _iter(iterable: Any, position: int) -> Iterator[Any]:
    try:
        return iter(iterable)
    except TypeError as error:
        raise TypeError(
            f"pmap needs something to iterate over, but iterable {position} is {short_repr(iterable)} "
            f"({type(iterable).__qualname__}): {error}"
        ) from None
