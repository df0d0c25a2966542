"""Workers that die of an item while they read their batch, or are stopped while they read a function."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from asyncpar import ProcessExecutor, WorkerDiedError, pmap
from tests.calls.reading import KillsItsReader
from tests.functions import identity, process_id
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("items", [1, 2, 7])
async def test_only_the_item_that_kills_its_readers_is_blamed(items: int) -> None:
    batch: list[Any] = [*range(items - 1), KillsItsReader()]
    async with ProcessExecutor(2) as executor:
        *others, killer = await pmap(identity, batch, executor=executor, on_error="return", batch_size=items)
    assert others == list(range(items - 1))
    assert isinstance(killer, WorkerDiedError)
    assert (killer.index, killer.exit_code) == (items - 1, 9)


SLOW_TO_FAIL = """import os, pathlib, time

directory = pathlib.Path(os.environ["ASYNCPAR_TEST"])
if (directory / "fails").exists():
    (directory / "read").touch()
    while not (directory / "let go").exists():
        time.sleep(0.001)
    raise LookupError("not this time")

def negate(x):
    return -x
"""


async def test_a_function_that_was_read_in_vain_while_its_run_was_cancelled_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ASYNCPAR_TEST", str(tmp_path))
    (tmp_path / "slow_to_fail.py").write_text(SLOW_TO_FAIL)
    monkeypatch.delitem(sys.modules, "slow_to_fail", raising=False)  # of the same test on another event loop
    module = importlib.import_module("slow_to_fail")
    async with ProcessExecutor(1, grace=30) as executor:
        (pid,) = await pmap(process_id, [0], executor=executor)
        (tmp_path / "fails").touch()
        async with anyio.create_task_group() as group:

            async def cancel_while_it_reads() -> None:
                await wait_until((tmp_path / "read").exists)
                group.cancel_scope.cancel()
                (tmp_path / "fails").unlink()
                (tmp_path / "let go").touch()

            group.start_soon(cancel_while_it_reads)
            await pmap(module.negate, [1], executor=executor)
        assert await pmap(module.negate, [1, 2], executor=executor) == [-1, -2]
        assert await pmap(process_id, [0], executor=executor) == [pid]
