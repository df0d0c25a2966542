"""A Ray cluster for tests, in processes that are no children of the tests' process: each test counts those that it leaves.

It ends when the program that has started it does. `python -m tests.ray.cluster 2` starts it, with two processors.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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


@contextlib.contextmanager
def running(processors: int) -> Iterator[Any]:
    """A cluster of Ray's own for tests, whose head has so many processors. Its files are removed."""
    os.environ["RAY_AUTH_MODE"] = "disabled"  # no file with a token in the home directory
    with tempfile.TemporaryDirectory(prefix="asyncpar-test-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.environ["RAY_TMPDIR"] = folder  # short, since there are sockets in it
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": processors, **HEAD})
        try:
            yield cluster
        finally:
            cluster.shutdown()


def serve(processors: int) -> None:
    out = os.dup(1)
    os.dup2(2, 1)  # Ray prints
    with running(processors) as cluster:
        os.write(out, f"{cluster.address}\n".encode())
        sys.stdin.read()


if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    serve(int(sys.argv[1]))
