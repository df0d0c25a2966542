"""Preloaded into a zygote, this makes its first forks fail, as many and with the errno that the environment says."""

import os

_failures = [int(os.environ["ASYNCPAR_TEST_ERRNO"])] * int(os.environ["ASYNCPAR_TEST_FAILURES"])
_fork = os.fork


def _failing_fork() -> int:
    if _failures:
        code = _failures.pop()
        raise OSError(code, os.strerror(code))
    return _fork()


os.fork = _failing_fork
