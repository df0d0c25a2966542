"""Errors of calls arrive unchanged, in their places. None is swallowed, and none ends more than it should."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Literal

import pytest

from asyncpar._map.pmap import pmap
from asyncpar.testing.functions import Holding, Marking, Refused, Refusing, exit_at_three, refuse_even, stop_iteration
from asyncpar.testing.kit import Kit, compare, wrong

COUNT = 600
BATCH_SIZES: list[int | Literal["auto"]] = ["auto", 70]


def comparable(result: Any) -> Any:
    """Compares types and arguments, because errors themselves are never equal."""
    return (type(result).__name__, *result.args) if isinstance(result, BaseException) else result


class Errors(Kit):
    @pytest.mark.parametrize("percent", [5, 50, 100])
    async def test_each_error_stands_in_the_place_of_its_item(self, percent: int) -> None:
        call = Refusing(percent)
        expected = [("Refused", x) if call.refuses(x) else x * x for x in range(COUNT)]
        kept = [x * x for x in range(COUNT) if not call.refuses(x)]
        async with self.executor() as executor:
            for batch_size in BATCH_SIZES:
                what = f"{percent} % of the calls fail, batch_size={batch_size!r}"
                results = await pmap(call, range(COUNT), executor=executor, batch_size=batch_size, on_error="return")
                compare([comparable(result) for result in results], expected, f'{what}, on_error="return"')
                stream = pmap(call, range(COUNT), executor=executor, batch_size=batch_size, on_error="skip")
                compare([result async for result in stream], kept, f'{what}, on_error="skip"')

    @pytest.mark.parametrize("percent", [5, 50, 100])
    async def test_an_error_ends_a_run_and_a_stream_gives_nothing_that_comes_after_it(self, percent: int) -> None:
        call = Refusing(percent)
        first = next(x for x in range(COUNT) if call.refuses(x))
        got = []
        async with self.executor() as executor:
            with pytest.raises(Refused):
                await pmap(call, range(COUNT), executor=executor)
            with pytest.raises(Refused) as caught:
                async for result in pmap(call, range(COUNT), executor=executor):
                    got.append(result)
        (refused,) = caught.value.args
        assert call.refuses(refused), f"the error is that of item {refused}, whose call does not fail"
        compare(got, [x * x for x in range(min(len(got), first))], f"the results before item {first}, the first that fails")

    async def test_an_error_keeps_its_type_and_arguments_and_names_its_call(self) -> None:
        async with self.executor() as executor:
            with pytest.raises(ValueError, match="bad 8") as caught:
                await pmap(refuse_even, [1, 3, 5, 8], executor=executor)
        assert type(caught.value) is ValueError
        assert caught.value.args == ("bad 8", 8), f"the arguments of the error are {caught.value.args}"
        notes = getattr(caught.value, "__notes__", [])
        assert any("call 3, item 8" in note for note in notes), f"no note names the index and the item: {notes}"

    async def test_outcomes_have_index_value_error_and_attempts(self) -> None:
        call = Refusing(50)
        async with self.executor() as executor:
            outcomes = [outcome async for outcome in pmap(call, range(100), executor=executor).outcomes()]
        compare([outcome.index for outcome in outcomes], list(range(100)), "the indices of the outcomes")
        values = [None if call.refuses(x) else x * x for x in range(100)]
        compare([outcome.value for outcome in outcomes], values, "the values of the outcomes")
        failed = [x for x in range(100) if call.refuses(x)]
        compare([outcome.index for outcome in outcomes if outcome.error is not None], failed, "the outcomes with an error")
        assert all(outcome.seconds >= 0 for outcome in outcomes), "a call took less than no time: look at BatchDone.timings"
        assert all(outcome.worker for outcome in outcomes), "an outcome does not say which worker it is from"
        if not executor.traits.may_rerun:
            compare([outcome.attempts for outcome in outcomes], [1] * 100, "the attempts of the outcomes")

    async def test_stop_iteration_from_a_call_ends_no_loop(self) -> None:
        async with self.executor() as executor:
            with pytest.raises(RuntimeError, match="a call raised StopIteration"):
                await pmap(stop_iteration, [1, 2], executor=executor)
            results = await pmap(stop_iteration, range(10), executor=executor, on_error="return", batch_size=5)
        compare([comparable(result) for result in results], [("StopIteration", x) for x in range(10)], "calls that all stop")

    async def test_a_call_that_exits_does_not_end_the_program(self) -> None:
        async with self.executor() as executor:
            results = await pmap(exit_at_three, range(6), executor=executor, on_error="return", batch_size=6)
            compare(results[:3] + results[4:], [0, 1, 2, 4, 5], "the calls beside one that raised SystemExit")
            if type(results[3]) is not RuntimeError or "raised SystemExit: 9" not in str(results[3]):
                wrong(f"the result of a call that raised SystemExit is {results[3]!r}; make it an error of the call")
            await self.check_usable(executor, "a call that raised SystemExit")

    @pytest.mark.parametrize("batch_size", [1, 4])
    async def test_a_call_that_fails_is_tried_again_and_no_other(self, tmp_path: Path, batch_size: Any) -> None:
        marking = Marking(tmp_path, refuses=(2, 5, 6))
        expected = {x: 3 if x in marking.refuses else 1 for x in range(9)}
        async with self.executor() as executor:
            results = pmap(marking, range(9), executor=executor, retries=2, batch_size=batch_size)
            outcomes = [outcome async for outcome in results.outcomes()]
            may_rerun = executor.traits.may_rerun
        begun = dict(marking.begun)
        if may_rerun:
            assert all(begun.get(x, 0) >= often for x, often in expected.items()), f"begun {begun}, expected {expected}"
        else:
            assert begun == expected, f"with retries=2, how often each item was called is {begun}, not {expected}"
            compare([outcome.attempts for outcome in outcomes], list(expected.values()), "the attempts of the outcomes")
        failed = [outcome.index for outcome in outcomes if outcome.error is not None]
        compare(failed, list(marking.refuses), "the calls that fail in the end")

    async def test_a_function_that_cannot_be_sent_fails_with_clear_words(self) -> None:
        async with self.executor() as executor:
            try:
                results = await pmap(Holding(), [1, 2], executor=executor)
            except (pickle.PicklingError, TypeError) as error:
                assert "lock" in str(error), f"the error does not say what cannot be sent, a lock: {error!r}"
                await self.check_usable(executor, "a function that could not be sent")
                return
            compare(results, [1, 2], "a function that holds a lock")
            pytest.skip("this executor shares our memory: it can run any function")
