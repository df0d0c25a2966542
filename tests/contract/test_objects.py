"""Ordinary objects as items and results: what they share, where their classes come from, and what one that fails costs."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from asyncpar import Executor, FuturesExecutor, PicklingError, ProcessExecutor, pmap
from asyncpar._wire.definitions import MOST_DEFINITIONS, Candidates
from tests.calls.own_classes import again, append_to, are_same, call, class_of, label_of, length, x_of
from tests.calls.reading import NotReadThere, unreadable_if_odd
from tests.functions import identity
from tests.helper_processes import FORKSERVER, helper_processes
from tests.loops import on_one_loop

pytestmark = [pytest.mark.anyio, on_one_loop]


@pytest.fixture(scope="module", autouse=True)
def helpers_run() -> Iterator[None]:
    with helper_processes():
        yield


@pytest.fixture(params=["process", "pool"])
async def sending(request: pytest.FixtureRequest, anyio_backend: object) -> AsyncIterator[Executor]:
    """Executors that pickle what they send."""
    make: dict[str, Callable[[], Executor]] = {
        "process": lambda: ProcessExecutor(2),
        "pool": lambda: FuturesExecutor(lambda: ProcessPoolExecutor(2, mp_context=FORKSERVER)),
    }
    async with make[request.param]() as executor:
        yield executor


def make_class(label: str = "first") -> Any:
    """A class that no worker can import."""

    class Own:
        def __init__(self, x: int) -> None:
            self.x = x

    setattr(Own, "label", label)  # noqa: B010 - type checkers do not know it
    return Own


async def test_objects_come_back_with_the_class_that_they_were_sent_with(sending: Executor) -> None:
    own = make_class()
    results = await pmap(again, [own(x) for x in range(5000)], executor=sending)
    assert [result.x for result in results] == list(range(1, 5001))
    assert {type(result) for result in results} == {own}


async def test_a_class_travels_once_and_not_with_each_object_or_batch() -> None:
    own = make_class()
    own.ballast = "b" * 10_000
    async with ProcessExecutor(2) as executor:
        run = pmap(again, [own(x) for x in range(2000)], executor=executor, batch_size=10)
        await run
        statistics = run.statistics()
    assert statistics.batches == 200
    sent_with_batches = 4 * 2 * 10_000  # those that were packed before the first was sent, there and back
    assert statistics.inline_bytes < sent_with_batches + 2 * 10_000 + 2000 * 100


async def test_no_result_or_error_changes_the_callers_class(sending: Executor) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(  # as a script would define them
        "state = [1]\n"
        "class Item(Exception):\n"
        "    count = 0\n"
        "    def value(self): return state[0]\n"
        "def touch(item):\n"
        "    type(item).count += 1\n"
        "    if item.args[0] % 2: raise item\n"
        "    return item\n"
        "def make(x):\n"
        "    Item.count += 1\n"
        "    if x % 2: raise Item(x)\n"
        "    return Item(x)\n",
        namespace,
    )
    kind = namespace["Item"]
    for function, items in ((namespace["touch"], [kind(x) for x in range(30)]), (namespace["make"], range(30))):
        results: list[Any] = await pmap(function, items, executor=sending, on_error="return", batch_size=1)
        assert {type(result) for result in results} == {kind}
        single = await sending.run(function, items[2])
        with pytest.raises(kind):
            await sending.run(function, items[1])
        namespace["state"][0] += 1
        assert type(single) is kind
        assert kind.count == 0
        assert single.value() == results[0].value() == namespace["state"][0]


async def test_a_class_of_the_function_is_the_class_of_its_results(sending: Executor) -> None:
    own = make_class()
    results = await pmap(lambda x: own(x), range(100), executor=sending)
    assert {type(result) for result in results} == {own}


async def test_the_function_and_the_classes_of_items_share_what_is_global(sending: Executor) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(  # as a script would define them
        "seen = []\n"
        "class Note:\n"
        "    def __init__(self, x): self.x = x\n"
        "    def keep(self): seen.append(self.x)\n"
        "def note(item):\n"
        "    before = len(seen)\n"
        "    Note(0).keep()\n"
        "    item.keep()\n"
        "    return len(seen) - before\n",
        namespace,
    )
    note, kind = namespace["note"], namespace["Note"]
    assert await pmap(note, [kind(x) for x in range(50)], executor=sending, batch_size=5) == [2] * 50


async def test_a_class_that_is_changed_or_made_anew_between_runs_is_sent_anew(sending: Executor) -> None:
    for label in ("first", "second"):
        own = make_class(label)
        assert await pmap(label_of, [own(x) for x in range(50)], executor=sending, batch_size=2) == [label] * 50
        own.label = "changed"
        assert await pmap(label_of, [own(x) for x in range(50)], executor=sending, batch_size=2) == ["changed"] * 50


async def test_two_runs_at_once_may_have_classes_of_the_same_name(sending: Executor) -> None:
    one, other = make_class("one"), make_class("other")
    async with (
        pmap(label_of, [one(x) for x in range(30)], executor=sending, batch_size=1) as ones,
        pmap(label_of, [other(x) for x in range(30)], executor=sending, batch_size=1) as others,
    ):
        assert [label async for label in others] == ["other"] * 30
        assert [label async for label in ones] == ["one"] * 30


async def test_a_class_for_each_item_is_no_burden_for_the_run(sending: Executor) -> None:
    classes = [make_class(str(x)) for x in range(2 * MOST_DEFINITIONS)]
    items = [own(x) for x, own in enumerate(classes)]
    assert await pmap(label_of, items, executor=sending, batch_size=7) == [own.label for own in classes]


async def test_what_comes_a_second_time_becomes_a_definition_once() -> None:
    one, other, candidates = make_class(), make_class(), Candidates()
    assert candidates.choose([one, one, lambda: None]) == []
    assert candidates.choose([one, other, one]) == [one]
    assert candidates.choose([one, other]) == [other]
    many = [make_class() for _ in range(2 * MOST_DEFINITIONS)]
    assert candidates.choose(many) == []
    assert len(candidates.choose(many)) == MOST_DEFINITIONS - 2


async def test_a_class_that_takes_long_to_pickle_travels_with_the_batches() -> None:
    own = make_class()
    own.table = {x: x for x in range(300_000)}
    async with ProcessExecutor(2) as executor:
        run = pmap(x_of, [own(x) for x in range(6)], executor=executor, batch_size=1)
        assert await run == list(range(6))
        assert run.statistics().inline_bytes + run.statistics().shared_bytes > 6 * 1_000_000


async def test_a_definition_that_cannot_be_read_costs_the_calls_that_need_it(sending: Executor) -> None:
    own, bad = make_class(), make_class()
    bad.held = ExitsWhenRead()
    items = [bad(x) if x % 4 == 1 else own(x) for x in range(40)]
    results = await pmap(x_of, items, executor=sending, on_error="return", batch_size=4)
    for x, result in enumerate(results):
        assert isinstance(result, RuntimeError) if x % 4 == 1 else result == x


class ExitsWhenRead:
    def __reduce__(self) -> Any:
        return sys.exit, (3,)


async def test_functions_made_for_each_item_are_items_like_others(sending: Executor) -> None:
    functions = [lambda x=x: x for x in range(300)]
    assert await pmap(call, functions, executor=sending, batch_size=7) == list(range(300))


async def test_a_class_comes_back_as_the_class_itself(sending: Executor) -> None:
    own = make_class()
    assert set(await pmap(class_of, [own(x) for x in range(100)], executor=sending, batch_size=3)) == {own}


async def test_a_class_that_cannot_be_sent_costs_the_calls_that_have_it(sending: Executor) -> None:
    own, bad = make_class(), make_class()
    bad.lock = threading.Lock()
    items = [bad(x) if x % 7 == 3 else own(x) for x in range(70)]
    results = await pmap(x_of, items, executor=sending, on_error="return", batch_size=10)
    for x, result in enumerate(results):
        if x % 7 == 3:
            assert isinstance(result, PicklingError)
            assert f"the item of call {x}" in str(result)
            assert "lock" in str(result)
        else:
            assert result == x


async def test_what_items_of_a_batch_share_stays_shared(sending: Executor) -> None:
    shared: list[int] = []
    assert await pmap(append_to, [shared] * 4, executor=sending, batch_size=2, n_jobs=1) == [1, 2, 1, 2]
    assert await pmap(are_same, [(shared, shared)] * 3, executor=sending) == [True] * 3
    assert shared == []


async def test_an_item_that_cannot_be_read_costs_its_call_only(sending: Executor) -> None:
    items = [NotReadThere(x) if x % 5 == 2 else [x] for x in range(200)]
    results = await pmap(identity, items, executor=sending, on_error="return", batch_size=20)
    for x, result in enumerate(results):
        if x % 5 == 2:
            assert isinstance(result, ValueError)
            assert str(result) == f"not {x}"
        else:
            assert result == [x]


async def test_a_result_that_cannot_be_read_costs_its_call_only(sending: Executor) -> None:
    results = await pmap(unreadable_if_odd, range(200), executor=sending, on_error="return", batch_size=20)
    for x, result in enumerate(results):
        if x % 2:
            assert isinstance(result, ValueError)
            assert str(result) == f"not {x}"
        else:
            assert result == [x]


async def test_no_call_is_made_twice_because_a_result_could_not_be_read(tmp_path: Any) -> None:
    path = str(tmp_path / "calls")

    def note_and_return(x: int) -> Any:
        with open(path, "a") as file:
            file.write(f"{x}\n")
        return unreadable_if_odd(x)

    await pmap(note_and_return, range(60), executor="process", on_error="return", batch_size=20)
    assert sorted(map(int, (tmp_path / "calls").read_text().split())) == list(range(60))


async def test_once_something_could_not_be_read_the_run_sends_its_objects_one_by_one() -> None:
    shared = ["s" * 1000]
    items: list[Any] = [NotReadThere(0), *[[shared, x] for x in range(400)]]
    async with ProcessExecutor(1) as executor:
        run = pmap(length, items, executor=executor, on_error="return", batch_size=20)
        assert (await run)[1:] == [2] * 400
        one_by_one = run.statistics().inline_bytes
        run = pmap(length, items[1:], executor=executor, batch_size=20)
        assert await run == [2] * 400
        whole = run.statistics().inline_bytes
    assert one_by_one > 5 * whole
