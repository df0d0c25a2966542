"""`contextvars=` in code that is not async: the context is that of the thread that makes the call."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any

import pytest

import asyncpar
from asyncpar import Parallel, PoolExecutor, ProcessExecutor, delayed
from tests.calls.in_context import UNSET, VARIABLES, look, look_and_change, request, tenant


def in_a_request(value: str) -> Context:
    context = copy_context()
    context.run(request.set, value)
    return context


def test_parallel_carries_the_values_of_its_caller() -> None:
    with Parallel(n_jobs=2, contextvars=VARIABLES) as parallel:
        calls = [delayed(look_and_change)(x) for x in range(4)]
        for value in ("first", "second"):
            assert in_a_request(value).run(parallel, calls) == [(value, "nobody")] * 4
        assert parallel([delayed(look)(), delayed(look)(_=1), delayed(look)(2)]) == [(UNSET, "nobody")] * 3


def test_parallel_refuses_what_the_executor_refuses() -> None:
    with pytest.raises(TypeError, match="contextvars must be a list of ContextVar objects"):
        Parallel(n_jobs=2, contextvars=["request"])


def test_a_pool_carries_the_values_of_whoever_submits() -> None:
    with PoolExecutor(executor=ProcessExecutor(1, contextvars=VARIABLES)) as pool:
        futures = [in_a_request(value).run(pool.submit, look_and_change, 1) for value in ("first", "second")]
        assert [future.result() for future in futures] == [("first", "nobody"), ("second", "nobody")]
        assert pool.submit(look).result() == (UNSET, "nobody")


def test_a_blocking_map_and_a_blocking_call_do_too() -> None:
    executor = ProcessExecutor(1, contextvars=VARIABLES)
    context = in_a_request("a request")
    assert context.run(list, asyncpar.map(look, [1, 2], executor=executor)) == [("a request", "nobody")] * 2
    context.run(tenant.set, "somebody")
    assert context.run(asyncpar.call, look, executor=executor) == ("a request", "somebody")


SCRIPT = """
import asyncio
from contextvars import ContextVar

from asyncpar import ProcessExecutor, pmap

user = ContextVar("user", default="nobody")
role = ContextVar("role")


def greet(name):
    seen = f"{user.get()} greets {name} as {role.get('guest')}"
    user.set("a leak")
    return seen


def same(variables):
    return variables[0] is user, variables


async def main():
    async with ProcessExecutor(1, contextvars=[user, role]) as executor, ProcessExecutor(1) as plain:
        print(await pmap(greet, ["Ada"], executor=executor))
        user.set("Grace")
        print(await pmap(greet, ["Ada", "Alan"], executor=executor, batch_size=1))
        print(await executor.run(greet, "Edsger"))
        print(await plain.run(greet, "Edsger"))
        is_same, back = await executor.run(same, [user, role])
        print(is_same, back[0] is user, back[1] is role)


asyncio.run(main())
"""
PRINTED = """\
['nobody greets Ada as guest']
['Grace greets Ada as guest', 'Grace greets Alan as guest']
Grace greets Edsger as guest
nobody greets Edsger as guest
True True True
"""


def test_variables_of_a_script_are_carried_too(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stderr, done.stdout) == ("", PRINTED)


def look_again(item: object) -> tuple[object, object]:
    return look(item)


def test_a_generator_of_parallel_keeps_the_values_with_which_it_began() -> None:
    """Also for a function that comes only later."""

    def calls() -> Iterator[object]:
        yield from [delayed(look)(x) for x in range(40)]
        yield from [delayed(look_again)(x) for x in range(40)]

    def consume() -> set[object]:
        parallel: Any = Parallel(n_jobs=2, contextvars=VARIABLES, return_as="generator", batch_size=1, pre_dispatch=2)
        results = parallel(calls())
        seen = {next(results)}
        request.set("later")
        return seen | set(results)

    assert in_a_request("at the beginning").run(consume) == {("at the beginning", "nobody")}
