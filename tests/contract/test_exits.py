"""A call that exits, or raises KeyboardInterrupt, fails. It neither ends the program nor is mistaken for Ctrl-C."""

from __future__ import annotations

import asyncio
import pdb
import subprocess
import sys
from typing import Any

import pytest

from asyncpar import ProcessExecutor, ThreadExecutor, pmap
from tests.calls import interpreted
from tests.calls.exits import ENDS, Mute, exit_at_two, raise_it, raise_it_soon, stop_in_the_debugger, stop_in_the_debugger_soon
from tests.loops import on_one_loop

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("fn", [raise_it, raise_it_soon])
@pytest.mark.parametrize("executor", ["process", "thread"])
async def test_what_would_end_a_program_is_an_error_of_the_call(executor: str, fn: Any) -> None:
    for error in ENDS:
        kind = type(error)
        with pytest.raises(RuntimeError, match=rf"call 0, item {kind.__name__}.*, raised {kind.__name__}") as caught:
            await pmap(fn, [error], executor=executor)
        assert type(caught.value.__cause__) is kind
        assert "asyncpar: raised by call 0" in caught.value.__notes__[0]


@pytest.mark.parametrize(("fn", "executor"), [(raise_it, "inline"), (raise_it_soon, "inline"), (raise_it_soon, None)])
async def test_a_call_in_the_callers_own_task_does_not_end_the_program_by_exiting(executor: str | None, fn: Any) -> None:
    with pytest.raises(RuntimeError, match=r"item SystemExit.*, raised SystemExit: 3"):
        await pmap(fn, [SystemExit(3)], executor=executor)


@pytest.mark.parametrize(("fn", "executor"), [(raise_it, "inline"), (raise_it_soon, "inline"), (raise_it_soon, None)])
@pytest.mark.parametrize("on_error", ["raise", "return", "skip"])
async def test_ctrl_c_in_the_callers_own_task_goes_straight_through(executor: str | None, fn: Any, on_error: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        await pmap(fn, [KeyboardInterrupt()], executor=executor, on_error=on_error)


async def test_the_run_goes_on_when_a_call_exits(executor: Any) -> None:
    results = await pmap(exit_at_two, range(5), executor=executor, on_error="return")
    assert [repr(result) for result in results] == [
        "0",
        "1",
        "RuntimeError('call 2, item 2, raised SystemExit: 1')",
        "3",
        "4",
    ]
    assert await pmap(exit_at_two, range(5), executor=executor, on_error="skip") == [0, 1, 3, 4]


async def test_a_stream_and_outcomes_have_the_same_error(executor: Any) -> None:
    outcomes = [outcome async for outcome in pmap(exit_at_two, range(5), executor=executor).outcomes()]
    assert [type(outcome.error) for outcome in outcomes if outcome.error] == [RuntimeError]
    with pytest.raises(RuntimeError, match="call 2, item 2, raised SystemExit: 1"):
        async with pmap(exit_at_two, range(5), executor=executor) as results:
            async for _ in results:
                pass


async def test_an_exit_is_tried_again_only_if_it_was_asked_for(executor: Any) -> None:
    options: dict[str, Any] = {"executor": executor, "retries": 2}
    [outcome] = [outcome async for outcome in pmap(exit_at_two, [2], **options).outcomes()]
    assert outcome.attempts == 1
    [outcome] = [outcome async for outcome in pmap(exit_at_two, [2], retry_on=SystemExit, **options).outcomes()]
    assert outcome.attempts == 3
    assert isinstance(outcome.error, RuntimeError)


@on_one_loop
async def test_an_exit_that_says_nothing_is_told_of() -> None:
    with pytest.raises(RuntimeError, match="raised Mute: <its __str__ raised ValueError>"):
        await pmap(raise_it, [Mute()], executor="thread")


async def exit_in_a_task(error: BaseException) -> None:
    async def raise_error() -> None:
        raise error

    await asyncio.create_task(raise_error())


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()], ids=repr)
async def test_a_task_of_a_call_in_a_thread_does_not_end_the_program(error: BaseException) -> None:
    with pytest.raises(RuntimeError, match=f"a task that was started by call 0.*raised {type(error).__name__}"):
        await pmap(exit_in_a_task, [error], executor="thread")


def set_trace(x: object) -> object:
    pdb.set_trace()
    return x


@on_one_loop
@pytest.mark.parametrize("fn", [stop_in_the_debugger, stop_in_the_debugger_soon])
async def test_a_breakpoint_in_a_worker_says_what_to_do(fn: Any) -> None:
    with pytest.raises(RuntimeError, match='executor="inline", or with n_jobs=1 in Parallel') as caught:
        await pmap(fn, [1], executor="process")
    assert "stop_in_the_debugger" in str(caught.value.__cause__)


@on_one_loop
async def test_a_debugger_that_finds_no_terminal_fails_its_call(capfd: pytest.CaptureFixture[str]) -> None:
    [error] = await pmap(set_trace, [1], executor="process", on_error="return")
    assert isinstance(error, Exception)  # BdbQuit, or a RuntimeError in the place of SystemExit, as Python's version has it
    assert "(Pdb)" in capfd.readouterr().out


def note(*arguments: object) -> None:
    raise LookupError("this is the debugger of the user")


@on_one_loop
@pytest.mark.parametrize(("variable", "result"), [("0", "[1]"), ("tests.contract.test_exits.note", "LookupError")])
async def test_a_debugger_that_the_user_has_named_is_honoured(
    variable: str, result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONBREAKPOINT", variable)
    async with ProcessExecutor(1) as executor:
        assert result in repr(await pmap(stop_in_the_debugger, [1], executor=executor, on_error="return"))


PROGRAM = """
import asyncio
from asyncpar import pmap
from tests.calls.exits import exit_at_two

async def main():
    try:
        await pmap(exit_at_two, range(5), executor="process")
    except RuntimeError as error:
        print(error)

asyncio.run(main())
print("the program goes on")
"""


def test_a_program_goes_on_when_a_call_exits() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "call 2, item 2, raised SystemExit: 1\nthe program goes on\n"


@on_one_loop
async def test_a_coroutine_call_that_cancels_all_tasks_in_its_thread_does_not_cancel_its_run() -> None:
    async with ThreadExecutor(1) as executor:
        assert await pmap(interpreted.cancel_all_others, range(3), executor=executor, concurrency=1) == [0, 1, 2]
