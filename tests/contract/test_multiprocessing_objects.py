"""What programs make with `multiprocessing` and map over: proxies of managers, and its shared memory, which outlives workers.

As programs of their own, since multiprocessing keeps helper processes of its own until its program ends.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PREAMBLE = """
import asyncio, sys
from asyncpar import Parallel, ProcessExecutor, delayed, pmap

def abs_(x):
    return abs(x)
"""


def outcome_of(tmp_path: Path, program: str, *arguments: str) -> tuple[int, str, str]:
    """As a file: what multiprocessing spawns imports it."""
    script = tmp_path / "script.py"
    script.write_text(PREAMBLE + textwrap.dedent(program))
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


PROXIES = """
    def count(numbers, x):
        numbers[x] = 2 * x

    async def main():
        async with ProcessExecutor(2, preload=sys.argv[2:]) as executor:
            if sys.argv[1] == "late":
                await pmap(abs_, range(-10, 0), executor=executor)  # so that there are workers
                assert "multiprocessing.process" not in sys.modules
            import multiprocessing
            with multiprocessing.Manager() as manager:
                numbers = manager.dict()
                await pmap(count, [numbers] * 10, range(10), executor=executor, batch_size=2)
                print(dict(sorted(numbers.items())) == {x: 2 * x for x in range(10)})
            multiprocessing.current_process().authkey = b"another"
            with multiprocessing.Manager() as manager:
                numbers = manager.dict()
                await pmap(count, [numbers] * 2, range(2), executor=executor)
                print(sorted(numbers.items()))

    if __name__ == "__main__":
        asyncio.run(main())
"""


@pytest.mark.parametrize("when", ["early", "late"])
@pytest.mark.parametrize("preload", [(), ("multiprocessing.managers",)])
def test_calls_may_use_what_a_manager_holds(tmp_path: Path, when: str, preload: tuple[str, ...]) -> None:
    assert outcome_of(tmp_path, PROXIES, when, *preload) == (0, "True\n[(0, 0), (1, 2)]\n", "")


def test_an_initializer_may_use_what_a_manager_holds(tmp_path: Path) -> None:
    program = """
        def note(notes):
            notes.append(1)

        if __name__ == "__main__":
            import multiprocessing
            with multiprocessing.Manager() as manager:
                notes = manager.list()
                calls = [delayed(abs_)(x) for x in range(-4, 0)]
                with Parallel(n_jobs=1 + 1, backend="process", initializer=note, initargs=(notes,)) as parallel:
                    print(parallel(calls), set(notes))
    """
    assert outcome_of(tmp_path, program) == (0, "[4, 3, 2, 1] {1}\n", "")


def test_a_call_within_a_call_may_use_what_a_manager_holds(tmp_path: Path) -> None:
    program = """
        def count(numbers, x):
            numbers[x] = 2 * x

        def count_all(numbers, begin):
            Parallel(n_jobs=2, backend="process")(delayed(count)(numbers, x) for x in range(begin, begin + 3))

        if __name__ == "__main__":
            import multiprocessing
            with multiprocessing.Manager() as manager:
                numbers = manager.dict()
                Parallel(n_jobs=2)(delayed(count_all)(numbers, begin) for begin in (0, 3))
                print(dict(sorted(numbers.items())))
    """
    assert outcome_of(tmp_path, program) == (0, "{0: 0, 1: 2, 2: 4, 3: 6, 4: 8, 5: 10}\n", "")


SHARED = """
    from multiprocessing.shared_memory import SharedMemory

    def write(segment, x):
        if type(segment) is str:
            segment = SharedMemory(segment)
        segment.buf[x] = x
        segment.close()
        return x

    async def main():
        segment = SharedMemory(create=True, size=100)
        given = segment if sys.argv[1] == "argument" else segment.name
        async with ProcessExecutor(2, max_calls_per_worker=1, preload=sys.argv[2:]) as executor:
            await pmap(write, [given] * 8, range(8), executor=executor, batch_size=2)
        again = SharedMemory(segment.name)  # it is still there
        print(list(again.buf[:9]))
        again.close()
        segment.close()
        segment.unlink()

    asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["argument", "name"])
@pytest.mark.parametrize("preload", [(), ("multiprocessing.shared_memory",)])
def test_shared_memory_outlives_the_workers_that_open_it(tmp_path: Path, how: str, preload: tuple[str, ...]) -> None:
    assert outcome_of(tmp_path, SHARED, how, *preload) == (0, "[0, 1, 2, 3, 4, 5, 6, 7, 0]\n", "")


def test_shared_memory_that_a_call_makes_is_there_until_somebody_unlinks_it(tmp_path: Path) -> None:
    program = """
        from multiprocessing.shared_memory import SharedMemory

        def make(x):
            segment = SharedMemory(create=True, size=10)
            segment.buf[0] = x
            segment.close()
            return segment.name

        def unlink(name):
            segment = SharedMemory(name)
            segment.unlink()
            value = segment.buf[0]
            segment.close()
            return value

        async def main():
            async with ProcessExecutor(1, max_calls_per_worker=1) as executor:
                names = await pmap(make, range(4), executor=executor)
                print(unlink(names[0]), await pmap(unlink, names[1:], executor=executor))
                try:
                    SharedMemory(names[1])
                except FileNotFoundError:
                    print("gone")

        asyncio.run(main())
    """
    assert outcome_of(tmp_path, program) == (0, "0 [1, 2, 3]\ngone\n", "")


def test_a_worker_imports_nothing_of_multiprocessing_on_its_own_account(tmp_path: Path) -> None:
    program = """
        import multiprocessing.process

        def loaded(_):
            return [name for name in sys.modules if name.startswith("multiprocessing.")]

        async def main():
            print(await pmap(loaded, [0], executor="process"))

        asyncio.run(main())
    """
    assert outcome_of(tmp_path, program) == (0, "[[]]\n", "")


MANAGED = textwrap.dedent(
    """
    import multiprocessing, sys
    from asyncpar import Parallel, delayed

    def put(queue, seen, x):
        queue.put(x)
        seen[x] = True
        return queue  # a proxy may also come back

    if __name__ == "__main__":
        with multiprocessing.get_context(sys.argv[1]).Manager() as manager:
            queue, seen = manager.Queue(), manager.dict()
            returned = Parallel(n_jobs=2)(delayed(put)(queue, seen, x) for x in range(4))
            print(sorted(each.get() for each in returned), sorted(seen.keys()))
    """
)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_proxies_of_a_manager_work_in_workers(tmp_path: Path, method: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(MANAGED)
    done = subprocess.run([sys.executable, str(script), method], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("[0, 1, 2, 3] [0, 1, 2, 3]\n", "")


def test_a_worker_waits_in_vain_for_the_end_of_its_parent(tmp_path: Path) -> None:
    program = """
        def wait(x):
            import multiprocessing.connection
            parent = multiprocessing.parent_process()
            return parent.join(0.001), parent.is_alive(), multiprocessing.connection.wait([parent.sentinel], 0.001)

        async def main():
            async with ProcessExecutor(1) as executor:
                print(await pmap(wait, range(2), executor=executor))

        if __name__ == "__main__":
            asyncio.run(main())
    """
    assert outcome_of(tmp_path, program) == (0, "[(None, True, []), (None, True, [])]\n", "")


@pytest.mark.parametrize("preload", [(), ("multiprocessing.process",)])
def test_a_worker_is_a_child_process_with_a_name_and_a_number(tmp_path: Path, preload: tuple[str, ...]) -> None:
    program = """
        import os

        def who(x):
            import multiprocessing, logging
            process, parent = multiprocessing.current_process(), multiprocessing.parent_process()
            record = logging.LogRecord("", 0, "", 0, "", None, None)
            return process.name, process._identity, record.processName == process.name, parent.pid, parent.is_alive()

        async def main():
            import multiprocessing
            async with ProcessExecutor(1, preload=sys.argv[1:]) as executor:
                for seen in await pmap(who, range(2), executor=executor):
                    print(seen == ("AsyncparProcess-1", (1,), True, os.getpid(), True))
            print(multiprocessing.current_process().name, multiprocessing.parent_process())

        if __name__ == "__main__":
            asyncio.run(main())
    """
    assert outcome_of(tmp_path, program, *preload) == (0, "True\nTrue\nMainProcess None\n", "")
