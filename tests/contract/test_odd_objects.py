"""Items, exceptions and streams whose own methods raise, SystemExit included: that costs a call, and never the run."""

from __future__ import annotations

from typing import Any

import pytest

from asyncpar import CallTimeoutError, Executor, PicklingError, ProcessExecutor, WorkerDiedError, pmap
from tests.calls.odd_objects import (
    ODD_KINDS,
    Alarm,
    RaisesWhen,
    RefusesNotes,
    RefusesWithoutWords,
    make_odd,
    refuse,
    refuse_for_good,
    refuse_with_odd_notes,
    replace_output,
    spin_for_ever,
)
from tests.functions import double, identity, kill_self, process_id
from tests.loops import on_one_loop

# What becomes of an object does not depend on the event loop
pytestmark = [pytest.mark.anyio, on_one_loop]


async def test_an_item_without_a_repr_is_named_by_its_class(executor: Executor) -> None:
    items = [RaisesWhen("__repr__", kind) for kind in ODD_KINDS] + [RaisesWhen("", Alarm)]
    errors: list[Any] = await pmap(refuse, items, executor=executor, on_error="return")
    assert [str(error) for error in errors] == ["no"] * len(items)
    for error, kind in zip(errors[1:], ODD_KINDS[1:], strict=False):
        assert f"item <RaisesWhen whose repr raised {kind.__name__}>" in error.__notes__[0]
    assert "call 0, item <RaisesWhen instance" in errors[0].__notes__[0]
    assert "item odd" in errors[-1].__notes__[0]


async def test_such_an_item_may_kill_its_worker_and_take_too_long() -> None:
    async with ProcessExecutor(1) as executor:
        (killed,) = await pmap(kill_self, [RaisesWhen("__repr__", SystemExit)], executor=executor, on_error="return")
        assert isinstance(killed, WorkerDiedError)
        assert "item <RaisesWhen whose repr raised SystemExit>" in str(killed)
        spin = pmap(spin_for_ever, [RaisesWhen("__repr__", SystemExit)], executor=executor, timeout=0.1, on_error="return")
        (late,) = await spin
        assert isinstance(late, CallTimeoutError)
        assert "item <RaisesWhen whose repr raised SystemExit>" in str(late)


@pytest.mark.parametrize("function", [refuse_for_good, refuse_with_odd_notes])
async def test_an_exception_that_takes_no_note_arrives_without_one(executor: Executor, function: Any) -> None:
    results = await pmap(function, range(3), executor=executor, on_error="return")
    assert [str(error) for error in results] == ["no"] * 3
    with pytest.raises((RefusesNotes, ValueError), match="no"):
        await pmap(function, range(3), executor=executor)


class Unprintable(Exception):
    def __repr__(self) -> str:
        raise SystemExit


async def test_the_closing_of_a_source_takes_nothing_from_the_error_of_a_block(executor: Executor) -> None:
    def careful() -> Any:
        try:
            yield from range(100)
        finally:
            raise Unprintable

    with pytest.raises(LookupError, match="mine") as caught:
        async with pmap(double, careful(), executor=executor, buffersize=2) as results:
            async for _ in results:
                raise LookupError("mine")
    assert caught.value.__notes__ == [
        "asyncpar: closing the source of the map then raised <Unprintable whose repr raised SystemExit>"
    ]


async def test_whatever_pickling_an_item_or_a_result_raises_fails_only_its_call() -> None:
    async with ProcessExecutor(1) as executor:
        (pid,) = await pmap(process_id, [0], executor=executor)
        for method in ("__getstate__", "__setstate__"):
            for kind in ODD_KINDS:
                items = [1, RaisesWhen(method, kind), 3]
                inward = await pmap(identity, items, executor=executor, on_error="return", batch_size=3)
                outward = await pmap(make_odd, [1, (method, kind), 3], executor=executor, on_error="return", batch_size=3)
                for results in (inward, outward):
                    assert results[::2] == [1, 3]
                    error: Any = results[1]
                    if method == "__setstate__" and not issubclass(kind, Exception):  # which may not end the program
                        error = error.__cause__ if type(error) is RuntimeError else error
                    assert isinstance(error, PicklingError if method == "__getstate__" else kind)
        with pytest.raises(PicklingError, match="the function"):
            await pmap(RaisesWhen("__getstate__", SystemExit), [1], executor=executor)
        assert await pmap(process_id, [0], executor=executor) == [pid]


async def test_an_item_may_be_refused_without_words() -> None:
    results = await pmap(identity, [1, RefusesWithoutWords()], executor="process", on_error="return")
    assert results[0] == 1
    assert isinstance(results[1], PicklingError)
    assert "cannot be pickled (WithoutWords: <its __str__ raised" in str(results[1])


@pytest.mark.parametrize("kind", [*ODD_KINDS, KeyboardInterrupt, None])
async def test_what_stands_for_stdout_in_a_worker_may_refuse_to_be_flushed(kind: type[BaseException] | None) -> None:
    async with ProcessExecutor(1, initializer=replace_output, initargs=(kind,)) as executor:
        (pid,) = await pmap(process_id, [0], executor=executor)
        assert await pmap(process_id, range(3), executor=executor, batch_size=1) == [pid] * 3
    async with ProcessExecutor(1) as executor:
        (pid,) = await pmap(process_id, [0], executor=executor)
        await pmap(replace_output, [kind], executor=executor)
        assert await pmap(process_id, range(3), executor=executor, batch_size=1) == [pid] * 3
