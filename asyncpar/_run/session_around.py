"""A session around the executor's own: it changes what is sent, or what comes back, and neither side knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from asyncpar._basics.forms import Form
from asyncpar._contract.batches import Batch
from asyncpar._contract.executor import Place, Session

_KEPT_FORMS = 64  # of functions; as many as `_sync/calls.py` keeps sessions

F = TypeVar("F", bound=Form)


class LongerBatch(Batch):
    """A batch with more columns than its calls have arguments, the last ones, which are for a form. `added`: how many."""

    __slots__ = ()
    added: ClassVar[int]

    @property
    def plain(self) -> Batch:
        function = self.function.function if isinstance(self.function, Form) else None
        return self.turned_into(Batch, self.columns[: -self.added], function)

    def item(self, position: int) -> Any:
        return self.plain.item(position)


class SessionAround(Session):
    """Passes everything on to `inner`."""

    def __init__(self, inner: Session) -> None:
        self.inner = inner

    def lease_nowait(self) -> Place | None:
        return self.inner.lease_nowait()

    async def lease(self) -> Place:
        return await self.inner.lease()

    def release(self, place: Any) -> None:
        self.inner.release(place)

    @property
    def is_contended(self) -> bool:
        return self.inner.is_contended

    def counters(self) -> Mapping[str, int]:
        return self.inner.counters()

    def close(self) -> None:
        self.inner.close()


class Forms(Generic[F]):
    """What is sent instead of the functions of a run's batches: the same form, whenever the same function comes."""

    def __init__(self, make: Callable[[Callable[..., Any]], F]) -> None:
        self._make = make
        self._made: dict[int, F] = {}  # {id of the function, which the form keeps alive: its form}

    def of(self, function: Callable[..., Any]) -> F:
        form = self._made.get(id(function))
        if form is None:
            if len(self._made) == _KEPT_FORMS:
                self._made.clear()
            form = self._made[id(function)] = self._make(function)
        return form
