"""The workers that one executor has in a Ray cluster: actors, which make one batch after another and start none by themselves.

**How many.** There is an actor for each task, whether it runs or waits: as many as the cluster has room for are alive, and the
others are pending. Pending actors are what lets a cluster grow, and one that comes alive says by itself that there is room for
it. So nothing is asked repeatedly, and a node that joins late has work as soon as Ray has started an actor there. In a Ray of
our own, which does not grow, each executor has no more actors than there are processors. When there
has been no task for a while, the actors of a cluster end, because others may want its processors.

**Two tasks.** An actor whose tasks are short has two of them, so that the next one is there when it has finished one. A task
that waits in an actor cannot go to another one that has nothing to do. So where tasks take long, they wait here, and an actor
that has not finished any gets one.

**Who is to blame.** When an actor dies, its two tasks are lost. The first of them was running, or it was just over, and its
answer was lost. So it is a *suspect*: its calls run again one by one, each with an actor to itself. The call that is lost then
is to blame. The other task is disturbed; it runs again, and nobody blames it. The same holds for all tasks of an actor that
was killed to end another task. Nobody is to blame for what a whole node takes along.

**How a task is ended.** The actor is told. If the task waits there, it is taken back, and disturbs nothing. If it runs, it
makes no further call. If the call that runs does not end in time, the actor is killed, and another one takes its place. (Ray
cannot cancel what waits in an actor for certain.)

# a task is in `Actor.tasks` from when it is sent until it is over; the first one runs
# load == tasks in actors + those that wait for one
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import anyio

from asyncpar._child.ray_worker import CONTROL, Introduction, RayWorker, own_version
from asyncpar._engines.ray_connection import name_of_connection
from asyncpar._platform.background import LoopHandle
from asyncpar.errors import ExecutorUnavailableError

DEPTH = 2  # tasks of an actor
_QUICK_SECONDS = 0.5  # a task: a batch of short calls takes up to 0.1 s; a guess
_BIRTHS = 3  # that may fail in a row
_BIRTHS_AT_ONCE = 4  # that are asked for in one turn of the event loop; each takes some 0.3 ms
_NODE_DIED = "because its node has died"  # why an actor did; Ray says that in words only
_OWNER_DIED = "because its owner has died"  # as Ray takes this process to have
_GRACE_SECONDS = 0.2  # that a task that is cancelled has for ending by itself, as in worker processes
_LOOK_SECONDS = 1.0  # between two looks at the connection
_KILL_SECONDS = 5.0  # that the end of a process is waited for


class Died(Exception):
    """The worker of a task died while it ran, as it seems."""


class Disturbed(Exception):
    """A task was lost with another one, which its worker was running, or which had to be ended."""


class NodeDied(Exception):
    """A whole machine was lost, perhaps with data."""


class Task:
    """Attributes:
    over: it has an outcome, and the actor has nothing more to do with it.
    is_still: it does not run, and will not.
    is_alone: its actor is reserved for it.
    """

    def __init__(self, actor: Actor, reference: Any, word: str, *, is_alone: bool) -> None:
        self.actor = actor
        self.reference = reference
        self.over = anyio.Event()
        self.is_still = anyio.Event()
        self.answer: Any = None
        self.error: BaseException | None = None
        self.has_come = False  # its answer, or its error, from Ray
        self.timeout: float | None = None
        self.is_alone = is_alone
        self.seconds = 0.0  # that it was the first of its actor's tasks
        self.word = word


class Actor:
    """Attributes:
    is_quick: its last task was short.
    began: when the first of its tasks did.
    moved: set, and replaced, when one of its tasks is over, or it is gone.
    is_reserved: for one task, which nothing may run beside.
    is_gone: it was killed, or has died.
    """

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.tasks: list[Task] = []
        self.is_quick = False
        self.began = 0.0
        self.is_alive = False
        self.moved = anyio.Event()
        self.is_reserved = False
        self.is_gone = False
        self.was_killed = False
        self.node = ""  # until it is alive
        self.pid: int | None = None  # if it runs on this machine

    def move(self) -> None:
        self.moved.set()
        self.moved = anyio.Event()


class Crew:
    """Args:
        ray: the module, connected.
        processors: how many the cluster has now.
        most: how many actors there may be; None: any number.
        changed: called when `alive` or `processors` has changed.

    Attributes:
        load: how many tasks there are.
        processors: how many the cluster has, as far as is known.
        alive: how many actors are.
    """

    def __init__(self, ray: Any, processors: int, most: int | None, changed: Callable[[], object]) -> None:
        self._ray = ray
        self._most = most
        self._changed = changed
        share = 1 if most is None else 0  # several executors may use a Ray of our own, and must not wait for each other
        options = {"num_cpus": share, "max_restarts": 0, "max_task_retries": 0, "concurrency_groups": {CONTROL: 1}}
        self._class = ray.remote(**options)(RayWorker)
        self._node: str = ray.get_runtime_context().get_node_id()
        self._connection = name_of_connection(ray)
        self._loop = LoopHandle()
        self._actors: list[Actor] = []
        self._waiters: deque[anyio.Event] = deque()  # of tasks that have found no room
        self._turned = anyio.Event()  # the first task has come, or the last one has gone
        self._failed_births = 0
        self._failure: ExecutorUnavailableError | None = None  # why there are no workers
        self._failure_is_told = False
        self._is_over = False  # for good
        self.load = 0
        self.processors = processors

    @property
    def alive(self) -> int:
        return sum([actor.is_alive for actor in self._actors])

    async def start_task(self, start: Callable[[Any], Any], word: str, *, alone: bool) -> Task:
        """Calls `start` with the handle of an actor that has room for a task. `word`: as in its message.

        Raises:
            ExecutorUnavailableError: actors cannot be made.
        """
        if self._failure_is_told and not self.load and not self._is_over:
            self._failure, self._failure_is_told, self._failed_births = None, False, 0  # perhaps it works again
        self._add_load(1)
        actor: Actor | None = None
        try:
            actor = await self._find_room(alone=alone)
            task = Task(actor, start(actor.handle), word, is_alone=alone)
        except BaseException:
            if alone and actor is not None:
                actor.is_reserved = False
            self._add_load(-1)
            self._wake_one()
            raise
        if not actor.tasks:
            actor.began = time.monotonic()
        actor.tasks.append(task)
        self._when_known(task.reference, partial(self._take, task))
        return task

    async def _find_room(self, *, alone: bool) -> Actor:
        """An actor with room, in turn. A task that has found one wakes the next: there may be room for that, too."""
        has_waited = False
        while True:
            if self._failure is not None:
                self._failure_is_told = True
                raise self._failure
            if not self._is_connected():
                self._lose_connection()
                continue
            self._see_to_actors()
            found = self._least_busy(alone=alone) if has_waited or not self._waiters else None
            if found is None:
                await self._wait_for_turn(was_first=has_waited)
                has_waited = True
            elif not alone or await self._reserve(found):
                self._wake_one()
                return found

    async def _wait_for_turn(self, *, was_first: bool) -> None:
        turn = anyio.Event()
        if was_first:
            self._waiters.appendleft(turn)
        else:
            self._waiters.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn in self._waiters:
                self._waiters.remove(turn)
            raise

    def _is_connected(self) -> bool:
        """Whether this is still the connection that the actors belong to. Without any, Ray would be started anew."""
        return name_of_connection(self._ray) == self._connection

    def _see_to_actors(self) -> None:
        """Makes actors that are missing: a few now, and others after a turn of the event loop."""
        wanted = self.load if self._most is None else min(self.load, self._most)
        missing = wanted - len(self._actors)
        if missing > _BIRTHS_AT_ONCE:
            self._loop.call_soon(self._make_more)
        for _ in range(min(missing, _BIRTHS_AT_ONCE)):
            actor = Actor(self._class.remote())
            self._actors.append(actor)
            self._when_known(actor.handle.introduce.remote(), partial(self._take_introduction, actor))

    def _make_more(self) -> None:
        if self._failure is None and self._is_connected():
            self._see_to_actors()

    def _least_busy(self, *, alone: bool) -> Actor | None:
        """`alone`: it may have any number of tasks, since it will be waited for."""
        has_two = self.alive >= min(self.load, self.processors)  # otherwise, there will be more actors soon
        able = [
            actor
            for actor in self._actors
            if actor.is_alive
            and not actor.is_reserved
            and (alone or not actor.tasks or (has_two and actor.is_quick and len(actor.tasks) < DEPTH))
        ]
        return min(able, key=_tasks_of, default=None)

    async def _reserve(self, actor: Actor) -> bool:
        """Reserves the actor, and waits until it has no task. Returns whether it lives."""
        actor.is_reserved = True
        try:
            while actor.tasks and not actor.is_gone:
                await actor.moved.wait()
        except BaseException:
            actor.is_reserved = False
            raise
        return not actor.is_gone

    # What Ray says

    def _when_known(self, reference: Any, take: Callable[[Any], None]) -> None:
        """Calls `take` in the event loop with the future of the reference when it has a result or an error."""
        reference.future().add_done_callback(lambda future: self._loop.call_soon(partial(take, future)))

    def _take_introduction(self, actor: Actor, future: Any) -> None:
        if actor.is_gone:
            return
        error = future.exception()
        if error is not None and not self._is_connected():
            self._lose_connection()
            return
        if error is not None:
            self._note_failed_birth(actor, error)
            return
        worker: Introduction = future.result()
        if worker.version != own_version():
            self._fail(f"its workers have asyncpar {worker.version}, and this is asyncpar {own_version()}")
            return
        self._failed_births = 0
        self.processors = int(worker.processors)
        actor.node = worker.node
        actor.pid = worker.pid if worker.node == self._node else None
        actor.is_alive = True
        self._changed()
        self._wake_one()

    def _note_failed_birth(self, actor: Actor, error: BaseException) -> None:
        self._failed_births += 1
        self._forget(actor)
        if self._failed_births >= _BIRTHS or not isinstance(error, self._ray.exceptions.RayActorError):
            self._fail(f"its workers cannot start, or do not have asyncpar: {_reason(error)}")
        elif self.load:
            self._see_to_actors()

    def _fail(self, why: str) -> None:
        self._failure = ExecutorUnavailableError(f"the Ray cluster runs no calls: {why:.500}")
        self.dismiss()
        self._wake_all()

    def _take(self, task: Task, future: Any) -> None:
        if task.over.is_set():
            return
        actor = task.actor
        task.has_come = True
        task.error = future.exception()
        if task.error is not None and not self._is_connected():  # whatever Ray says of it
            self._lose_connection()
            _give_up(task, self._failure)
            return
        if task.error is None:
            task.answer = future.result()
        if actor.is_gone or isinstance(task.error, self._ray.exceptions.RayActorError):
            self._bury(actor, task.error)
        else:
            self._end(task)

    def _end(self, task: Task) -> None:
        actor, now = task.actor, time.monotonic()
        actor.tasks.remove(task)
        task.seconds = now - actor.began
        actor.is_quick, actor.began = task.seconds < _QUICK_SECONDS, now
        if task.is_alone:  # others were sent before it was reserved
            actor.is_reserved = False
        task.over.set()
        task.is_still.set()
        self._add_load(-1)
        actor.move()
        self._wake_one()

    def _bury(self, actor: Actor, error: BaseException | None) -> None:
        """The actor is dead, or dying. When all of its tasks have come, it is known which one was running."""
        if not actor.is_gone:
            self._kill(actor)
            actor.was_killed = False
            if error is not None and self._is_of_node(error):
                self._leave_node(actor.node)
        if not all(task.has_come for task in actor.tasks):
            return
        may_blame = not actor.was_killed
        for task in actor.tasks[:]:
            if task.error is not None:
                task.error = self._verdict(task.error, may_blame=may_blame)
                may_blame = False
            self._end(task)

    def _is_of_node(self, error: BaseException) -> bool:
        """Whether the node is lost, too, or cannot be reached."""
        return isinstance(error, self._ray.exceptions.ActorUnavailableError) or _NODE_DIED in str(error)

    def _leave_node(self, node: str) -> None:
        """Its other actors seem to have nothing to do, and would be sent one task after the other."""
        for other in self._actors[:]:
            if other.node == node:
                self._kill(other)

    def _verdict(self, error: BaseException, *, may_blame: bool) -> BaseException:
        if not isinstance(error, self._ray.exceptions.RayActorError):
            return error
        if _OWNER_DIED in str(error):
            self._is_over = True
            self._fail("Ray has ended on this machine, so this process has no connection to the cluster any more")
            return NodeDied(_reason(error))
        if self._is_of_node(error):
            self.processors = min(self.processors, self.alive)  # until a worker knows better
            self._changed()
            return NodeDied(_reason(error))
        return Died(_reason(error)) if may_blame else Disturbed(_reason(error))

    # Ending

    def cancel(self, task: Task) -> None:
        """Tells its actor. `wait_for_end` does the rest."""
        if not task.over.is_set() and not task.actor.is_gone and self._is_connected():
            told = task.actor.handle.stop.options(concurrency_group=CONTROL).remote(task.word)
            self._when_known(told, partial(self._take_stop, task))

    def _take_stop(self, task: Task, future: Any) -> None:
        if future.exception() is None and future.result():
            task.is_still.set()

    async def wait_for_end(self, task: Task) -> None:
        """Returns when the task does not run any more; kills its actor if it does not stop in time."""
        with anyio.move_on_after(_GRACE_SECONDS):
            await task.is_still.wait()
        if not task.is_still.is_set():
            self._kill(task.actor)
            await task.is_still.wait()
        if task.actor.was_killed:
            await _wait_for_process(task.actor.pid)

    async def dismiss_idle(self, seconds: float) -> NoReturn:
        """Kills all actors, each time that there was no task for so long."""
        while True:
            turned, is_idle = self._turned, self._actors and not self.load
            with anyio.move_on_after(seconds if is_idle else math.inf) as scope:
                await turned.wait()
            if scope.cancelled_caught and not self.load:
                self.dismiss()

    async def notice_disconnection(self) -> NoReturn:
        """Ends all tasks when the program has disconnected from Ray. Nothing tells of that, so it is looked at repeatedly."""
        while True:
            await anyio.sleep(_LOOK_SECONDS)
            if self.load and not self._is_over and not self._is_connected():
                self._lose_connection()

    def _lose_connection(self) -> None:
        self._end_for_good("this process has disconnected from Ray, with ray.shutdown()")

    def dismiss(self) -> None:
        """Kills all actors."""
        for actor in self._actors[:]:
            self._kill(actor)

    async def close(self) -> None:
        pids = [actor.pid for actor in self._actors]
        self.let_go()
        for pid in pids:
            await _wait_for_process(pid)

    def let_go(self) -> None:
        """Ends everything, as far as that is possible without waiting."""
        self._end_for_good("this RayExecutor is closed")

    def _end_for_good(self, why: str) -> None:
        self._is_over = True
        self._failure = ExecutorUnavailableError(why)
        tasks = [task for actor in self._actors for task in actor.tasks]
        self.dismiss()
        for task in tasks:
            _give_up(task, self._failure)
        self._wake_all()

    def _kill(self, actor: Actor) -> None:
        actor.was_killed = True
        if actor.is_gone:
            return
        self._forget(actor)
        if self._is_connected():
            self._ray.kill(actor.handle)

    def _forget(self, actor: Actor) -> None:
        actor.is_gone, was_alive, actor.is_alive = True, actor.is_alive, False
        self._actors.remove(actor)
        if was_alive:
            self._changed()
        actor.move()
        self._wake_one()

    def _add_load(self, tasks: int) -> None:
        self.load += tasks
        if not self.load or self.load == tasks:
            self._turned.set()
            self._turned = anyio.Event()

    def _wake_one(self) -> None:
        if self._waiters:
            self._waiters.popleft().set()

    def _wake_all(self) -> None:
        while self._waiters:
            self._waiters.popleft().set()


def _give_up(task: Task, why: BaseException | None) -> None:
    task.error = why
    task.over.set()
    task.is_still.set()


def _tasks_of(actor: Actor) -> int:
    return len(actor.tasks)


def _reason(error: BaseException) -> str:
    """Why an actor died, in one line: Ray's text ends with it."""
    return str(error).strip().split("\n")[-1]


async def _wait_for_process(pid: int | None) -> None:
    """Waits until a process of this machine has ended; Ray says that it is dead some time before."""
    if pid is None or not hasattr(os, "pidfd_open"):
        return
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:  # it has ended
        return
    try:
        with anyio.move_on_after(_KILL_SECONDS):
            await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)
