"""A Dask cluster for tests, in processes that are no children of the tests' process: each test counts those that it leaves.

It ends when the program that has started it does. `python -m tests.dask.cluster 2` starts it with two workers.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from typing import Any

_CLOSE_SECONDS = 15.0  # after a worker has died at its start, a cluster may wait for it forever


class Cluster:
    """Talks to the process of a cluster.

    Attributes:
        address: of the scheduler.
        pid: of the process with the scheduler.
    """

    def __init__(self, workers: int) -> None:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # it may have been killed
        command = [sys.executable, "-m", "tests.dask.cluster", str(workers), self._folder.name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._process.wait()  # what we talk to is its grandchild
        self.address = self._hear()
        self.pid = int(self._hear())

    def tell(self, command: str) -> str:
        """Has a command carried out; returns the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._hear()

    def pids(self) -> list[int]:
        """Of the workers."""
        return [int(pid) for pid in self.tell("pids").split()]

    def kill_scheduler(self) -> None:
        """Its workers end as well."""
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has been killed
            stdin.close()
        if not select.select([stdout], [], [], _CLOSE_SECONDS)[0]:
            self.kill_scheduler()
        stdout.close()
        self._folder.cleanup()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def serve(workers: int, folder: str) -> None:
    import dask
    from distributed import LocalCluster

    settings = {
        "temporary-directory": folder,
        "distributed.comm.timeouts.connect": "2s",  # instead of 30: so long it tries to reach a worker that has just died
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs={
                "dashboard": False,
                "dashboard_address": "127.0.0.1:0",
                "allowed_failures": 1,  # instead of 3: so often it runs a task again whose worker has died
            },
            silence_logs=logging.CRITICAL,
        ) as cluster,
    ):
        say(cluster.scheduler_address)
        say(os.getpid())
        supervisor = Supervisor(cluster, workers)
        for line in sys.stdin:
            command, *arguments = line.split()
            say(carry_out(cluster, supervisor, command, *map(int, arguments)))
        supervisor.stop()
    say("closed")


class Supervisor(threading.Thread):
    """Starts workers in the place of those that Dask has given up, as whoever runs a cluster does.

    Dask itself replaces a worker that dies, unless it dies while it starts. `workers`: how many there are to be; None: that is
    not up to this thread.
    """

    def __init__(self, cluster: Any, workers: int | None) -> None:
        super().__init__(daemon=True)
        self.workers = workers
        self._cluster = cluster
        self._is_over = threading.Event()
        self.start()

    def run(self) -> None:
        cluster = self._cluster
        while not self._is_over.wait(0.2):
            for name, nanny in list(cluster.workers.items()):
                if nanny.status.name in ("closing", "closed", "failed"):
                    cluster.workers.pop(name, None)
            if self.workers is not None and len(cluster.workers) < self.workers:
                cluster.scale(self.workers)

    def stop(self) -> None:
        self._is_over.set()
        self.join()


def carry_out(cluster: Any, supervisor: Supervisor, command: str, *arguments: int) -> str:
    if command == "pids":
        return " ".join(str(worker.process.pid) for worker in cluster.workers.values() if worker.process is not None)
    if command == "scale":
        (supervisor.workers,) = arguments
        cluster.scale(*arguments)
    elif command == "adapt":
        supervisor.workers = None
        cluster.adapt(minimum=arguments[0], maximum=arguments[1], interval="100ms", target_duration="1s")
    else:
        raise AssertionError(f"unknown command {command}")
    return "done"


def say(what: object) -> None:
    print(what, flush=True)


if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    serve(int(sys.argv[1]), sys.argv[2])
