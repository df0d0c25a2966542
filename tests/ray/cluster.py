"""A Ray cluster for tests, in processes that are no children of the tests' process: each test counts those that it leaves.

It ends when the program that has started it does. `python -m tests.ray.cluster 2` starts it, with two processors.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import Any

MOST_BYTES = 200_000_000  # in the object store
HEAD = {"object_store_memory": MOST_BYTES, "include_dashboard": False}


class Cluster:
    """Talks to the process of a cluster.

    Attributes:
        address: of the cluster.
    """

    def __init__(self, processors: int) -> None:
        command = [sys.executable, "-m", "tests.ray.cluster", str(processors)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._process.wait()  # what we talk to is its grandchild
        self.address = self._hear()

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def make_cluster(processors: int) -> Any:
    from ray.cluster_utils import Cluster

    return Cluster(initialize_head=True, head_node_args={"num_cpus": processors, **HEAD})


def serve(processors: int) -> None:
    out = os.dup(1)
    os.dup2(2, 1)  # Ray prints
    cluster = make_cluster(processors)
    os.write(out, f"{cluster.address}\n".encode())
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    serve(int(sys.argv[1]))
