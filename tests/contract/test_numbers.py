"""Numbers of every kind and size: each is refused at once, by name, or the run is as it should be. None fails from inside."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from asyncpar import ProcessExecutor, ThreadExecutor, pmap
from tests.functions import double, double_slowly, double_soon
from tests.loops import on_one_loop

# What a number is taken for does not depend on the event loop
pytestmark = [pytest.mark.anyio, on_one_loop]

inf, nan = math.inf, math.nan


class Two:
    """A whole number, and nothing else."""

    def __index__(self) -> int:
        return 2

    def __repr__(self) -> str:
        return "Two()"


LONG = "9" * 400  # as a text
NUMBERS: list[Any] = [
    *(0, -1, 10**30, 10**400, inf, nan, True, "2", LONG, 2.0, 2.5),
    *(np.int64(2), np.float64(2), Fraction(2), Fraction(5, 2), Decimal(2), Two()),
]
WHOLE = [10**30, 10**400, np.int64(2), Two]  # which of them are accepted; one type stands for its values
REAL = [10**30, 2.0, 2.5, np.int64(2), np.float64(2), Fraction(2), Fraction(5, 2)]
OPTIONS = {
    "n_jobs": [-1, *WHOLE],
    "batch_size": WHOLE,
    "buffersize": WHOLE,
    "retries": [0, *WHOLE],
    "seed": [0, *WHOLE],
    "timeout": [10**400, inf, *REAL],
    "retry_wait": [0, *REAL],
    "max_nbytes": [0, "2", LONG, 10**400, *REAL],
}
ARGUMENTS = {  # of a ProcessExecutor
    "max_workers": WHOLE,
    "inner_max_num_threads": WHOLE,
    "max_calls_per_worker": WHOLE,
    "max_memory": [10**30, 10**400],
    "max_shared_bytes": [0, *WHOLE],
    "idle_timeout": [10**400, inf, *REAL],
    "grace": [0, 10**400, inf, *REAL],
}
OF_ARRAYS = ("inner_max_num_threads", "max_shared_bytes")  # they are about numpy, or about how arrays travel


def is_among(number: Any, accepted: list[Any]) -> bool:
    return any(type(number) is other or (type(number) is type(other) and number == other) for other in accepted)


def split(accepted: list[Any]) -> tuple[list[Any], list[Any]]:
    """The numbers that are accepted, and those that are not."""
    taken = [number for number in NUMBERS if is_among(number, accepted)]
    assert len(taken) == len(accepted)
    return taken, [number for number in NUMBERS if not is_among(number, accepted)]


@pytest.mark.parametrize(("name", "accepted"), OPTIONS.items(), ids=OPTIONS)
async def test_an_option_takes_a_number_or_refuses_it(name: str, accepted: list[Any], executor: Any) -> None:
    good, bad = split(accepted)
    for number in good:
        options: Any = {name: number}
        assert await pmap(double_slowly, range(5), executor=executor, **options) == [0, 2, 4, 6, 8]
        assert await pmap(double_soon, iter(range(5)), executor=executor, **options) == [0, 2, 4, 6, 8]
        assert [x async for x in pmap(double, iter(range(5)), executor=executor, **options)] == [0, 2, 4, 6, 8]
    for number in bad:
        options = {name: number}
        with pytest.raises(ValueError, match=f"^{name} must be .* not "):
            pmap(double, [1], **options)


@pytest.mark.parametrize("name", ["process", "thread", "inline", None])
async def test_executors_by_name_take_any_number_of_workers(name: str | None) -> None:
    for number in split(OPTIONS["n_jobs"])[0]:
        results = pmap(double, range(5), executor=name, n_jobs=number)
        assert await results == [0, 2, 4, 6, 8]
        assert 0 <= results.statistics().utilisation <= 1
        assert await pmap(double_soon, iter(range(5)), executor=name, n_jobs=number) == [0, 2, 4, 6, 8]


async def test_a_call_may_be_tried_again_more_often_than_a_float_can_be_doubled() -> None:
    failures = 0

    def fail_often(x: int) -> int:
        nonlocal failures
        failures += 1
        if failures < 1100:
            raise ValueError(failures)
        return x

    assert await pmap(fail_often, [1], executor="inline", retries=10**400) == [1]


async def test_concurrency_is_a_number_or_refused() -> None:
    good, bad = split(WHOLE)
    for number in good:
        for executor in (None, "thread"):
            assert await pmap(double_soon, range(5), concurrency=number, executor=executor) == [0, 2, 4, 6, 8]
    for number in bad:
        with pytest.raises(ValueError, match=r"^concurrency must be a number of calls, 1 or more, or None, not "):
            pmap(double_soon, [1], concurrency=number)


@pytest.mark.parametrize(("name", "accepted"), ARGUMENTS.items(), ids=ARGUMENTS)
async def test_a_process_executor_takes_a_number_or_refuses_it(
    name: str, accepted: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    good, bad = split(accepted)
    # Both go through shared memory, but each worker imports numpy for an array, which takes longer than all the rest
    large: Any = np.arange(200_000) if name in OF_ARRAYS else bytes(range(256)) * 6000
    for number in good:
        arguments: Any = {name: number}
        async with ProcessExecutor(**{"max_workers": 2, **arguments}) as executor:
            first, *small, last = await pmap(double, [large, 3, 4, large], executor=executor)
            assert small == [6, 8]
            assert bytes(first) == bytes(last) == bytes(large * 2)
    assert capfd.readouterr().err == ""  # what goes wrong in the helper process as it ends is seen nowhere else
    for number in bad:
        arguments = {name: number}
        with pytest.raises(ValueError, match=f"^{name} must be .*not "):
            ProcessExecutor(**arguments)


async def test_a_thread_executor_takes_a_number_or_refuses_it() -> None:
    good, bad = split(WHOLE)
    for number in good:
        async with ThreadExecutor(number) as executor:
            assert await pmap(double, range(5), executor=executor) == [0, 2, 4, 6, 8]
    for number in bad:
        with pytest.raises(ValueError, match=r"^max_workers must be at least 1, or None"):
            ThreadExecutor(number)
