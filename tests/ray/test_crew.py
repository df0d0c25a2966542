"""Which worker a task gets, as the crew decides it. Ray is played by the test, so nothing happens unless the test says so."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from asyncpar._child.ray_worker import Introduction, own_version
from asyncpar._engines.ray_crew import Crew, Task

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])]


class Reference:
    """Of Ray, to what comes when the test says so."""

    def __init__(self) -> None:
        self.known: Future[Any] = Future()

    def future(self) -> Future[Any]:
        return self.known


class Handle:
    """Of an actor that is alive at once."""

    def __init__(self) -> None:
        self.introduce = SimpleNamespace(remote=self._introduce)

    def _introduce(self) -> Reference:
        reference = Reference()
        reference.known.set_result(Introduction(own_version(), 1, "there", 1.0))
        return reference


class PlayedRay:
    exceptions = SimpleNamespace(RayActorError=RuntimeError, ActorUnavailableError=RuntimeError)

    def remote(self, **_: Any) -> Any:
        return lambda _: SimpleNamespace(remote=Handle)

    def is_initialized(self) -> bool:
        return True

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "here", get_job_id=lambda: "ours")


async def begin(crew: Crew, tasks: list[Task], *, alone: bool = False) -> None:
    tasks.append(await crew.start_task(lambda _: Reference(), "", alone=alone))


async def finish(task: Task) -> None:
    task.reference.known.set_result(None)
    await task.over.wait()
    await anyio.wait_all_tasks_blocked()


async def test_an_actor_that_is_reserved_while_it_has_two_tasks_stays_so_until_the_suspect_is_over() -> None:
    crew = Crew(PlayedRay(), 1, 1, lambda: None)
    earlier: list[Task] = []
    await begin(crew, earlier)
    await finish(earlier.pop())  # it was quick, so the actor may have two
    await begin(crew, earlier)
    await begin(crew, earlier)
    suspect: list[Task] = []
    other: list[Task] = []
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: begin(crew, suspect, alone=True))
        await anyio.wait_all_tasks_blocked()
        group.start_soon(begin, crew, other)
        await anyio.wait_all_tasks_blocked()
        for task in earlier:
            await finish(task)
            assert not other
        assert suspect[0].actor.tasks == suspect
        await finish(suspect[0])
        assert other


async def test_an_actor_is_free_again_when_the_suspect_cannot_be_sent() -> None:
    crew = Crew(PlayedRay(), 1, 1, lambda: None)
    tasks: list[Task] = []

    def refuse(_: Any) -> Any:
        raise ValueError("not sent")

    with pytest.raises(ValueError, match="not sent"):
        await crew.start_task(refuse, "", alone=True)
    with anyio.fail_after(5):
        await begin(crew, tasks)
    await finish(tasks[0])
